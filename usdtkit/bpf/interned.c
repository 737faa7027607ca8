/*
 * Texts that are sent once, and then go by a number: program.py puts this behind the prelude of a program that has
 * such keys.
 *
 * The number of a text is a hash of what a scanner (scanner.py) finds in it. Multiplier and start are random for each
 * program and never leave it, so nobody can look for two texts with one number; by chance there are any among a
 * million different texts in one of ten million sessions (63 bits).
 *
 * A text is read block by block, as in globs.c, and the code has a single path through a block for the same reason.
 */
#define SCAN_BLOCK 64
#define NO_ROOM 2 /* the number of all texts for which the ring buffer had no room; others are odd, or 0 for no text */

struct scanner { u16 step[32 * 256]; };
BPF_ARRAY(scanners, struct scanner, 1);
BPF_RINGBUF_OUTPUT(text_records, 256); /* in pages: room for 3,600 new texts of 256 bytes at once */
/* Numbers whose texts were sent. One that has to go is sent again when its text comes again. */
BPF_TABLE("lru_hash", u64, u64, texts_sent, 16384);

/* `kind` is that of the records that send such texts: a text and bytes that look the same have two numbers. */
static __always_inline u64 text_hash(u32 kind, u32 number, u32 is_kernel, u32 nul_ends, u64 from, s64 length, u32 size,
                                     u64 start, u64 multiplier, u64 *unreadable) {
  struct scanner *scanner = scanners.lookup(&number);
  u64 block[2 * SCAN_BLOCK / 8] = {}, hash = (start + (kind << 8 | number)) * multiplier, state = 0, nul = 0;
  hash ^= hash >> 32;
  bpf_probe_read_kernel(&length, sizeof(length), &length); /* makes the verifier forget where it is from */
  if (!scanner || length < 0) return 0;
#pragma clang loop unroll(disable)
  for (u32 at = 0; at < size; at += SCAN_BLOCK) {
    s64 part = size - at < SCAN_BLOCK ? size - at : SCAN_BLOCK, left = length - at;
    long error;
    if (left <= 0) break;
    left += (part - left) & -((u64)(part - left) >> 63); /* the smaller of the two */
    if (is_kernel) error = bpf_probe_read_kernel(block, part, (void *)from + at);
    else error = bpf_probe_read_user(block, left & (2 * SCAN_BLOCK - 1), (void *)from + at);
    if (error) { count(unreadable); return 0; }
#pragma clang loop unroll(disable)
    for (u32 j = 0; j < SCAN_BLOCK; j++) {
      u64 c = ((u8 *)block)[j], over = (u64)(--left) >> 63;
      asm volatile("" : "+r"(c)); /* keeps clang from making a branch of the next line */
      if (nul_ends) nul |= (c - 1) >> 63 & (over - 1);
      over |= nul;
      u64 index = (state & 0x1f00) | c;
      asm volatile("" : "+r"(index)); /* keeps the next mask: for Linux 6.1 a number from | has no bounds */
      u64 step = scanner->step[index & 0x1fff];
      u64 counted = ((c + 1) & -(step & 1)) | (step & 0xfe) << 8;
      u64 mixed = (hash ^ counted) * multiplier;
      mixed ^= mixed >> 32;
      hash ^= (hash ^ mixed) & (0 - ((0 - counted) >> 63)) & (over - 1);
      state ^= (state ^ step) & (over - 1);
    }
    if (nul) break;
  }
  /* A text of which only the beginning was read is not one that ends there. */
  hash ^= (u64)(size - length) >> 63 & (nul ^ 1);
  hash *= multiplier;
  return (hash ^ hash >> 32) | 1;
}
