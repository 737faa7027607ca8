/*
 * Globs: program.py puts this behind the prelude of a program that tests strings by them.
 *
 * Bit i of `state` is set while what was read so far matches the first i elements of the pattern. `step` has, for each
 * byte, the elements that it matches; `stay` those before which a star stands; `accept` the last one. A string is read
 * block by block and looked at once, without a branch for a byte: the verifier has one path to follow. No buffer could
 * hold the whole of it: the stack is small, and per-CPU memory is another thread's as soon as this one is preempted.
 */
#define GLOB_BLOCK 64
#define USER_STRING 0
#define USER_TEXT 1 /* ends at a NUL, or after a length */
#define USER_BYTES 2
#define KERNEL_STRING 3
#define KERNEL_BYTES 4

struct glob { u64 stay, accept, step[256]; };
BPF_ARRAY(globs, struct glob, 1);

/*
 * The state behind a block: behind `n` bytes of it, or where a text ends by a NUL, which sets `ended`. Strings end by a NUL
 * wherever they were cut.
 */
static __always_inline u64 glob_block(struct glob *g, u64 state, u8 *block, u32 kind, s64 n, u64 *ended) {
  u64 nul = 0, is_counted = kind != USER_STRING && kind != KERNEL_STRING;
  u64 is_text = kind != USER_BYTES && kind != KERNEL_BYTES;
#pragma clang loop unroll(disable)
  for (u32 j = 0; j < GLOB_BLOCK; j++) {
    u64 c = block[j], over = is_counted ? (u64)(--n) >> 63 : 0;
    asm volatile("" : "+r"(c)); /* or clang would make a branch of the next line */
    if (is_text) nul |= (c - 1) >> 63 & (over - 1);
    over |= nul;
    state = (state << 1 & g->step[c] & (over - 1)) | (state & (g->stay | -over));
  }
  *ended |= nul;
  return state;
}

/* Whether the first `size` bytes match, and nothing follows them, or anything may. */
static __always_inline u64 glob_match(u32 number, u32 kind, u64 from, s64 length, u32 size, u32 unreadable) {
  struct glob *g = globs.lookup(&number);
  u64 block[GLOB_BLOCK / 8 + 1] = {}, state = 1, ended = 0, is_string = kind == USER_STRING || kind == KERNEL_STRING;
  if (!g || (kind >= KERNEL_STRING && length < 0)) return 0;
  s64 end = is_string || (u64)length > size ? size : length;
#pragma clang loop unroll(disable)
  for (u32 at = 0; at < size; at += GLOB_BLOCK) {
    u32 part = size - at < GLOB_BLOCK ? size - at : GLOB_BLOCK;
    long read;
    if (!is_string && at >= end) break;
    if (kind == USER_STRING) read = read_string(block, part + 2, from + at);
    else if (kind == KERNEL_STRING) read = bpf_probe_read_kernel_str(block, part + 2, (void *)from + at);
    else if (kind == KERNEL_BYTES) read = bpf_probe_read_kernel(block, part, (void *)from + at);
    else read = read_buffer(block, part, from + at, end - at);
    if (read < 0) { count(unreadable); return 0; }
    if (is_string) ((u8 *)block)[part] = 0;
    u64 nul = 0;
    state = glob_block(g, state, (u8 *)block, kind, end - at, &nul);
    ended |= is_string ? (u64)(read - part - 2) >> 63 : nul;
    /* Branches on `state` and `ended` alone, so that the verifier need not remember how they came about. */
    if (!state) return 0;
    if (ended) break;
  }
  if (!is_string) ended |= (u64)(end - length) >> 63 ^ 1;
  asm volatile("" : "+r"(ended));
  return (state & g->accept & (g->stay | -ended)) != 0;
}
