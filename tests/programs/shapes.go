package main

import (
	"fmt"
	"os"
)

type shape interface{ area(n int) int }
type square struct{ side int }

//go:noinline
func (s square) area(n int) int { return s.side*s.side + n }

//go:noinline
func leaf(n int) int { return n * 997 }

//go:noinline
func deep(n int) int {
	var room [512]byte
	room[n%512] = byte(n)
	if n == 0 {
		return int(room[0])
	}
	return deep(n-1) + int(room[n%512])
}

//go:noinline
func recovers(n int) (result int) {
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	if n > 2 {
		panic("no")
	}
	return deep(n)
}

//go:noinline
func chooses(n int, s shape) int {
	switch n {
	case 0:
		return s.area(1)
	case 1:
		return leaf(n)
	case 2:
		return deep(n)
	case 3, 4, 5:
		return recovers(n)
	case 6:
		return 7
	case 7:
		return leaf(9) + 1
	case 8:
		return 17
	case 9:
		return deep(3) + 1
	}
	return 0
}

func main() {
	total := 0
	for n := 0; n < 12; n++ {
		total += chooses(n, square{n})
	}
	fmt.Println(total, len(os.Args))
}
