/*
 * Globs: program.py puts this behind the prelude of a program that tests strings by them.
 *
 * Bit i of `state` is set while what was read so far matches the first i elements of the pattern. `step` has, for
 * each byte, the elements that it matches, `stay` the elements that follow a star, and `accept` the last element.
 *
 * A string is read block by block, and each block once. No buffer could hold all of it: the stack is small, and
 * per-CPU memory may be another thread's as soon as this one is preempted. The code is written so that the verifier
 * has a single path through a block. It remembers no states within a loop, so it would walk the rest again for each
 * further path.
 */
#define GLOB_BLOCK 64
#define USER_STRING 0
#define USER_TEXT 1 /* ends at a NUL, or after a length */
#define USER_BYTES 2
#define KERNEL_STRING 3
#define KERNEL_BYTES 4

struct glob { u64 stay, accept, step[256]; };
BPF_ARRAY(globs, struct glob, 1);

/* The state after `n` bytes of a block. If a NUL ends the text, the state before the NUL, and `ended` is set. */
static __always_inline u64 glob_block(struct glob *g, u64 state, u8 *block, s64 n, u64 nul_ends, u64 *ended) {
  u64 nul = 0;
#pragma clang loop unroll(disable)
  for (u32 j = 0; j < GLOB_BLOCK; j++) {
    u64 c = block[j], over = (u64)(--n) >> 63;
    asm volatile("" : "+r"(c)); /* keeps clang from making a branch of the next line */
    if (nul_ends) nul |= (c - 1) >> 63 & (over - 1);
    over |= nul;
    state = (state << 1 & g->step[c] & (over - 1)) | (state & (g->stay | -over));
  }
  *ended |= nul;
  return state;
}

/* Whether the first `size` bytes match, and either nothing follows them or the pattern allows anything to follow. */
static __always_inline u64 glob_match(u32 number, u32 kind, u64 from, s64 length, u32 size, u64 *unreadable) {
  u32 zero = 0, is_kernel = kind == KERNEL_STRING || kind == KERNEL_BYTES;
  struct glob *g = globs.lookup(&number);
  struct scratch *scratch = scratches.lookup(&zero);
  u64 block[2 * GLOB_BLOCK / 8] = {}, state = 1, ended = 0;
  if (!g || !scratch || (is_kernel && length < 0)) return 0;
  /* All of it is read once, to find its length and to bring in its pages. */
  if (kind == USER_STRING) length = read_string(scratch->data, size + 2, from);
  else if (kind == KERNEL_STRING) length = bpf_probe_read_kernel_str(scratch->data, size + 2, (void *)from);
  else if (kind != KERNEL_BYTES) length = read_buffer(scratch->data, size, from, length);
  bpf_probe_read_kernel(&length, sizeof(length), &length); /* makes the verifier forget where it is from */
  if (counted(length, unreadable) < 0) return 0;
  if (kind == USER_STRING || kind == KERNEL_STRING) length--;
#pragma clang loop unroll(disable)
  for (u32 at = 0; at < size; at += GLOB_BLOCK) {
    s64 part = size - at < GLOB_BLOCK ? size - at : GLOB_BLOCK, left = length - at;
    long error;
    if (left <= 0) break;
    left += (part - left) & -((u64)(part - left) >> 63); /* the smaller of the two */
    if (is_kernel) error = bpf_probe_read_kernel(block, part, (void *)from + at);
    else error = bpf_probe_read_user(block, left & (2 * GLOB_BLOCK - 1), (void *)from + at);
    if (error) { count(unreadable); return 0; }
    state = glob_block(g, state, (u8 *)block, left, kind == USER_TEXT, &ended);
    if (!state) return 0;
    if (ended) break;
  }
  ended |= (u64)(size - length) >> 63 ^ 1;
  asm volatile("" : "+r"(ended));
  return (state & g->accept & (g->stay | -ended)) != 0;
}
