/*
 * From one frame of a stack to its caller, by tables of call frame information. The kernel calls `walk_frame` in a loop,
 * which stacks.c starts; walker.py compiles this text, with walk.h before it, and the loader puts it behind each program
 * that takes stacks.
 *
 * What user space has written: for each process its executable mappings, in `unwind_processes`; for each page of code
 * in a file, in `unwind_index`, which rows say how to find the callers of its instructions; and the rows, in parts of
 * `unwind_rows`. usdtkit/unwind fills them, and native/unwind.h says what the fields of a row mean. The numbers here
 * are those of its enumerations.
 *
 * For the verifier: paths that meet again are taken for one only if nothing is known of what differs between them. So
 * a zero is read from a map, which might be anything to the verifier, and is OR-ed to such values.
 */
#define ROWS 32768
#define PAGES 131072
#define MAPPINGS 256
#define MOST_STEPS 12 /* of a search among the rows of one page, of which there are at most 4096 */
#define MOST_INSTANCES 64 /* of return probes that are pending between two frames */

#define FRAME_NONE 0
#define FRAME_SP 1
#define FRAME_FP 2
#define FRAME_PLT 3
#define FRAME_SIGNAL 4
#define FRAME_AT_FP 5
#define FRAME_BEHIND_SP 7
#define FRAME_END 8
#define FRAME_RAX 9
#define FRAME_R10 10
#define FRAME_R11 11
#define SAVED_FP 1
#define SAVED_AT_FP 2
#define SAVED_PAIR 4
#define SAVED_PAIR_HIGH 5
#define SAVED_RA 6
#define SAVED_RA_HIGH 7

struct row { u32 address; s16 offset; u8 kinds, slot; };
struct rows { struct row row[ROWS]; };
struct page { u32 row, count; };
struct pages { struct page page[PAGES]; };
struct mapping { u64 start, bias, size; u32 page, pages; };
struct process { u64 zero; u32 count, python; u64 runtime; u32 learned, spare; struct mapping mapping[MAPPINGS]; };

BPF_TABLE("array_of_maps", u32, struct rows, unwind_rows, 128);
BPF_ARRAY(unwind_index, struct pages, 1);
BPF_F_TABLE("hash", u32, struct process, unwind_processes, 1024, BPF_F_NO_PREALLOC);
BPF_ARRAY(return_instances, struct instances, 1);

/* All ones if a <= b, else 0. Both are below 2^63. */
static u64 mask_at_most(u64 a, u64 b) { return ~(u64)((s64)(b - a) >> 63); }

/* The number of the last mapping that begins at or before an address. */
static u64 find_mapping(struct process *p, u64 pc) {
  u64 at = 0;
  for (u32 half = MAPPINGS >> 1; half; half >>= 1) {
    u64 middle = (at + half) & (MAPPINGS - 1);
    at += half & mask_at_most(p->mapping[middle].start, pc);
  }
  return at;
}

/* Reads 8 bytes of the stack. A page that is not in memory is brought in, if it can be one of a stack. */
static long read_stack(struct walk *w, u64 *into, u64 address) {
  long error = bpf_probe_read_user(into, 8, (void *)address);
  if (error && address - w->first_sp < LARGEST_STACK) error = bpf_copy_from_user(into, 8, (void *)address);
  return error;
}

/*
 * Where `ip` is the trampoline of a pending return probe: one step of the search for the address that it has replaced,
 * which becomes `ip`. The kernel has a list of them, the innermost first, as the frames are, so a place in the list goes
 * with the walk. A function that has several probes is several times in it, and only the last one has the address.
 */
long find_return(u32 round, struct walk *w) {
  u32 none = 0;
  u64 stack = 0, original = 0, instance = w->instance;
  struct instances *known = return_instances.lookup(&none);
  if (!known || !instance) return 1;
  if (bpf_probe_read_kernel(&stack, 8, (void *)(instance + known->stack))) return 1;
  if (stack > w->sp - RETURN_SLOT) return 1; /* it is of a frame further up */
  bpf_probe_read_kernel(&original, 8, (void *)(instance + known->address));
  if (bpf_probe_read_kernel(&w->instance, 8, (void *)(instance + known->next))) return 1;
  if (stack != w->sp - RETURN_SLOT || original == w->ip) return 0;
  w->ip = original;
  return 1;
}

long walk_frame(u32 round, struct walk *w) {
  struct process *p = w->process;
  u64 pc = w->ip - 1 + w->exact, zero = p->zero, frame = 0;
  u32 kind = 0, saved = 0, slot = 0, none = 0;
  s64 offset = 0;
  u64 hash = (w->hash ^ w->ip) * 0x9e3779b97f4a7c15ULL;
  w->hash = hash ^ hash >> 32;
  if (w->record) w->record->address[w->depth & STACK_DEPTH] = w->ip;
  w->depth++;

  u64 at = w->mapping & (MAPPINGS - 1);
  if (pc - p->mapping[at].start >= p->mapping[at].size) { /* another one than of the frame before */
    at = (find_mapping(p, pc) | zero) & (MAPPINGS - 1);
    w->mapping = at;
  }
  struct mapping *m = &p->mapping[at];
  if (pc - m->start >= m->size) { w->end = END_UNKNOWN; return 1; }
  u64 inside = pc - m->bias, number = inside >> 12;
  if (number < m->pages) {
    struct pages *index = unwind_index.lookup(&none);
    if (!index) return 1;
    struct page *page = &index->page[(m->page + number) & (PAGES - 1)];
    u64 low = page->row & (ROWS - 1), count = page->count & (ROWS - 1);
    u32 part = page->row / ROWS;
    void *map = unwind_rows.lookup(&part);
    if (!map) { w->end = END_RULE; return 1; }
    struct rows *rows = (struct rows *)bpf_map_lookup_elem(map, &none);
    if (!rows) return 1;
    for (u32 step = 0; step < MOST_STEPS && count > 1; step++) {
      u64 half = count >> 1, middle = (low + half) & (ROWS - 1);
      low += half & mask_at_most(rows->row[middle].address, inside);
      count -= half;
    }
    struct row *row = &rows->row[low & (ROWS - 1)];
    kind = row->kinds & 15;
    saved = row->kinds >> 4;
    slot = row->slot;
    offset = (s64)row->offset * 8;
  }
  kind |= zero;
  saved |= zero;

  u64 base = w->sp;
  if (kind == FRAME_SP || kind == FRAME_FP) {
    if (kind == FRAME_FP) base = w->fp;
    base |= zero;
    frame = base + offset;
  } else if (kind == FRAME_NONE) {
    if (w->depth == 1 && w->place == AT_ENTRY) { /* the function has not saved the frame pointer yet */
      frame = w->sp + RETURN_SLOT;
      saved = 0;
    } else {
      if (w->fp < w->sp) { w->end = w->fp ? END_CHAIN : END_OUTERMOST; return 1; }
      frame = w->fp + 16;
      saved = SAVED_PAIR;
      slot = 2;
    }
  } else if (kind == FRAME_END) {
    w->end = END_OUTERMOST;
    return 1;
  } else if (kind == FRAME_SIGNAL) {
    u64 saved_fp = 0, saved_sp = 0, saved_ip = 0, saved_lr = 0;
    if (read_stack(w, &saved_fp, w->sp + SIGNAL_FP) || read_stack(w, &saved_sp, w->sp + SIGNAL_SP) ||
        read_stack(w, &saved_ip, w->sp + SIGNAL_IP)) { w->end = END_UNREADABLE; return 1; }
#ifdef LINK_REGISTER
    if (read_stack(w, &saved_lr, w->sp + SIGNAL_LR)) { w->end = END_UNREADABLE; return 1; }
#endif
    w->fp = saved_fp | zero;
    w->sp = saved_sp | zero;
    w->ip = saved_ip | zero;
    w->lr = saved_lr | zero;
    w->first_sp = saved_sp | zero; /* the handler may have had a stack of its own */
    w->exact = 1 | zero;
    return 0;
  } else if (kind == FRAME_PLT) {
    frame = w->sp + 8 + (((w->ip & 15) >= slot) << 3);
    saved = 0;
  } else if (kind <= FRAME_BEHIND_SP) {
    if (kind == FRAME_AT_FP) base = w->fp;
    if (read_stack(w, &frame, base + offset)) { w->end = END_UNREADABLE; return 1; }
    if (kind == FRAME_BEHIND_SP) frame += 8;
  } else if (w->depth == 1 && w->exact && kind <= FRAME_R11) {
    frame = w->rax;
    if (kind == FRAME_R10) frame = w->r10;
    if (kind == FRAME_R11) frame = w->r11;
    frame += offset;
  } else {
    w->end = END_RULE;
    return 1;
  }
  frame |= zero;
  saved |= zero;
  slot |= zero;
  if (frame < w->sp || (frame == w->sp && !(LEAF_FRAMES && w->depth == 1))) { w->end = END_BACKWARDS; return 1; }

  u64 address = w->lr, fp = w->fp, place = frame - 8 * (u64)slot;
#ifdef LINK_REGISTER
  if (saved == SAVED_PAIR_HIGH || saved == SAVED_RA_HIGH) place = base + 8 * (u64)slot;
  if (saved == SAVED_FP || saved == SAVED_PAIR || saved == SAVED_PAIR_HIGH) {
    if (read_stack(w, &fp, place)) { w->end = END_UNREADABLE; return 1; }
    place += 8;
  }
  if (saved >= SAVED_PAIR) {
    if (read_stack(w, &address, place)) { w->end = END_UNREADABLE; return 1; }
  } else if (w->depth > 1 && !w->exact) { w->end = END_RULE; return 1; } /* a caller has used the register since */
  address = PLAIN(address);
#else
  if (read_stack(w, &address, frame - 8)) { w->end = END_UNREADABLE; return 1; }
  if (saved == SAVED_AT_FP) place = w->fp;
  if (saved == SAVED_FP || saved == SAVED_PAIR || saved == SAVED_AT_FP) {
    if (read_stack(w, &fp, place | zero)) { w->end = END_UNREADABLE; return 1; }
  }
#endif
  w->sp = frame;
  w->ip = address;
  if (!(address & 4095)) { /* a trampoline begins a page */
    bpf_loop(MOST_INSTANCES, (void *)CALLBACK(1), w, 0);
    w->ip |= zero;
    w->instance |= zero;
  }
  w->fp = fp | zero;
  w->exact = zero;
  if (address) return 0;
  w->end = END_OUTERMOST;
  return 1;
}
