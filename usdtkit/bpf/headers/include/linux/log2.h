#ifndef USDTKIT_LOG2_H
#define USDTKIT_LOG2_H

/* For sizes of maps, which are constants. */
#define ilog2(n) (63 - __builtin_clzll(n))
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzll((n) - 1)))

#endif
