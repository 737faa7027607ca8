//go:build cgo

package main

// int twice(int n) { return 2 * n; }
import "C"

func init() { doubled = func(n int) int { return int(C.twice(C.int(n))) } }
