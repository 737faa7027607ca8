/* The other file of names.c, with a function of its own that is called as one there. */
__attribute__((noinline, noclone, used)) static long helper(long n) { __asm__ volatile("" : "+r"(n)); return n + 2; }
long helpers(long n) { return helper(n); }
