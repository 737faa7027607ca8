#include "textflag.h"

// func Triple(n int) int
TEXT ·Triple(SB), NOSPLIT, $0-16
	MOVQ n+0(FP), AX
	LEAQ (AX)(AX*2), AX
	MOVQ AX, ret+8(FP)
	RET
