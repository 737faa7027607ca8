// Goroutines, whose stacks are copied when they grow, and panics. The manners are those of case.h.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

func say(format string, values ...interface{}) {
	syscall.Write(1, []byte(fmt.Sprintf(format, values...)))
}

func awaitLine() {
	var c [1]byte
	for {
		n, err := syscall.Read(0, c[:])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || c[0] == '\n' {
			return
		}
	}
}

var paused int32

func pauseInside() {
	if atomic.SwapInt32(&paused, 1) == 0 {
		say("inside\n")
		awaitLine()
	}
}

type calls struct{ entered, returned int64 }

func (c *calls) enter() { atomic.AddInt64(&c.entered, 1) }
func (c *calls) leave() { atomic.AddInt64(&c.returned, 1) }
func (c *calls) tell(name string) {
	say("calls main.%s %d %d\n", name, atomic.LoadInt64(&c.entered), atomic.LoadInt64(&c.returned))
}

var ofDeep, ofWork, ofPanics, ofRecovers calls

// Each level needs more stack: the stack is copied several times on the way down, with all that is on it.
//
//go:noinline
func deep(levels int) int {
	ofDeep.enter()
	var room [64]int
	room[levels%64] = levels
	below := 0
	if levels > 0 {
		below = deep(levels-1) + 1
	} else {
		pauseInside()
	}
	if room[levels%64] != levels {
		say("room was overwritten\n")
	}
	ofDeep.leave()
	return below
}

func grow() {
	wrong := 0
	for n := 0; n < 3; n++ {
		done := make(chan int)
		go func() { done <- deep(5000) }()
		if <-done != 5000 {
			wrong++
		}
		runtime.GC() // which also makes stacks smaller
	}
	say("wrong %d\n", wrong)
	ofDeep.tell("deep")
}

// Goes on in another goroutine, and often in another thread, in the middle of each call.
//
//go:noinline
func work(n int) int {
	ofWork.enter()
	runtime.Gosched()
	result := deep(n%100) + 1
	runtime.Gosched()
	ofWork.leave()
	return result
}

func many() {
	var group sync.WaitGroup
	var wrong int64
	for g := 0; g < 8; g++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < 100; n++ {
				if work(n) != n+1 {
					atomic.AddInt64(&wrong, 1)
				}
			}
		}()
	}
	for n := 0; n < 5; n++ {
		runtime.GC()
	}
	group.Wait()
	say("wrong %d\n", wrong)
	ofWork.tell("work")
	ofDeep.tell("deep")
}

//go:noinline
func panics(n int) int {
	ofPanics.enter()
	if n == 1 {
		pauseInside()
	}
	if n%2 == 1 {
		panic(n)
	}
	ofPanics.leave()
	return n
}

//go:noinline
func recovers(n int) (result int) {
	ofRecovers.enter()
	defer func() {
		if thrown := recover(); thrown != nil {
			result = -thrown.(int)
		}
		ofRecovers.leave()
	}()
	return panics(n) + 1
}

func recovering() {
	sum := 0
	for n := 0; n < 997; n++ {
		sum += recovers(n)
	}
	say("sum %d\n", sum)
	ofRecovers.tell("recovers")
	ofPanics.tell("panics")
}

func main() {
	cases := map[string]func(){"grow": grow, "many": many, "recovering": recovering}
	if len(os.Args) == 2 && cases[os.Args[1]] != nil {
		say("ready\n")
		awaitLine()
		cases[os.Args[1]]()
		say("done\n")
		os.Exit(42)
	}
	os.Exit(96)
}
