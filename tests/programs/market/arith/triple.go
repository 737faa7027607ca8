// Package arith has assembler code, which a package that calls C cannot have.
package arith

func Triple(n int) int
