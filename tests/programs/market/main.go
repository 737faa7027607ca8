// A program with every kind of function that Go's compiler makes. After a line of input it calls each of them 997 times
// from two goroutines, and then tells the numbers of these: "NUMBER TIMES" a line.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"example.org/market/arith"
)

const times = 997

type Price float64

type Shop struct {
	name string
	sold int
}

type Seller interface {
	Sell(what string, amount int) (int, error)
}

//go:noinline
func (shop *Shop) Sell(what string, amount int) (int, error) {
	if amount == times {
		return 0, errors.New("sold out")
	}
	shop.sold += amount
	return len(what) + amount, nil
}

//go:noinline
func (price Price) Rounded() int { return int(price + 0.5) }

//go:noinline
func Map[T, U any](all []T, change func(T) U) []U {
	changed := make([]U, 0, len(all))
	for _, each := range all {
		changed = append(changed, change(each))
	}
	return changed
}

type Pair[T any] struct{ first, second T }

//go:noinline
func (pair *Pair[T]) Swap() { pair.first, pair.second = pair.second, pair.first }

//go:noinline
func many(a, b, c, d, e, f, g, h, i, j, k int) int { return a + b + c + d + e + f + g + h + i + j + k }

// Needs a larger stack, so that it begins twice where the stack has to grow.
//
//go:noinline
func deep(n int) int {
	var room [256]byte
	room[n%256] = 1
	if n == 0 {
		return int(room[0])
	}
	return deep(n-1) + int(room[n%256])
}

func inlined(n int) int { return n + 1 }

var doubled = func(n int) int { return 2 * n } // or by C, where the program is built with C

func own() string {
	var text [64]byte
	return strings.Fields(string(text[:runtime.Stack(text[:], false)]))[1]
}

func serve(from, to int, told chan<- string) {
	shop := &Shop{name: "corner"}
	var seller Seller = shop
	sell := shop.Sell
	total := 0
	for n := from; n < to; n++ {
		got, _ := seller.Sell("apples", n+1)
		more, _ := sell("a pear", 0)
		double := func(n int) int { return 2*n + got }
		total += more + Price(n).Rounded() + inlined(n) + arith.Triple(n) + doubled(n) + len(Map([]int{n}, double))
		pair := &Pair[string]{"a", "b"}
		pair.Swap()
		total += len(Map([]string{pair.first}, func(text string) float64 { return float64(len(text)) }))
		total += many(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, n)
		func() {
			defer func() {
				if recover() != nil {
					total++
				}
			}()
			if n%2 == 0 {
				panic("even")
			}
		}()
	}
	total += deep(100)
	told <- fmt.Sprint(own(), " ", to-from, " ", total)
}

func main() {
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	told := make(chan string, 2)
	var all sync.WaitGroup
	for _, part := range [][2]int{{0, 400}, {400, times}} {
		all.Add(1)
		go func(from, to int) {
			defer all.Done()
			serve(from, to, told)
		}(part[0], part[1])
	}
	all.Wait()
	fmt.Println(<-told)
	fmt.Println(<-told)
}
