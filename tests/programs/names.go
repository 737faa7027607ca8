// Functions of every form that a name in Go has: methods, generic ones, closures, method values, other alphabets.
package main

import (
	"fmt"
	"os"
)

type Shop struct{ n int }
type Seller interface{ Sell(int) int }
type List[T any] struct{ items []T }

//go:noinline
func (s *Shop) Sell(k int) int { s.n += k; return s.n }

//go:noinline
func (s Shop) Count() int { return s.n }

//go:noinline
func (l *List[T]) Add(item T) int { l.items = append(l.items, item); return len(l.items) }

//go:noinline
func Map[T, U any](items []T, f func(T) U) []U {
	var out []U
	for _, item := range items {
		out = append(out, f(item))
	}
	return out
}

//go:noinline
func größe(n int) int { return n + 1 }

func main() {
	shop := &Shop{len(os.Args)}
	var seller Seller = shop
	list := &List[string]{}
	sold := seller.Sell
	for i := 0; i < 995; i++ {
		seller.Sell(i)
	}
	fmt.Println(seller.Sell(3), shop.Count(), list.Add("a"), Map([]int{1, 2}, func(n int) string { return fmt.Sprint(n) }), sold(4), größe(3), struct{ a [2]interface{} }{} == struct{ a [2]interface{} }{})
	defer func() { recover() }()
}
