// Three goroutines, which call work 97, 194 and 291 times and then tell their own numbers: "NUMBER TIMES" a line.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
)

//go:noinline
func work(n int) int {
	if n == 0 {
		return 0
	}
	return work(n-1) + 1
}

func own() string {
	var text [64]byte
	return strings.Fields(string(text[:runtime.Stack(text[:], false)]))[1]
}

func main() {
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	var all sync.WaitGroup
	for n := 1; n <= 3; n++ {
		all.Add(1)
		go func(times int) {
			defer all.Done()
			for i := 0; i < times; i++ {
				work(0)
			}
			fmt.Println(own(), times)
		}(97 * n)
	}
	all.Wait()
}
