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
 * What changes from frame to frame is in a map, whose content means nothing to the verifier. So it looks at one frame
 * only, and takes 4 ms for that, where it would follow what is in registers, or in the stack, along all paths.
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
#define FRAME_AT_SP 6
#define FRAME_BEHIND_SP 7
#define FRAME_END 8
#define FRAME_RAX 9
#define FRAME_R10 10
#define FRAME_R11 11
#define NO_ADDRESS 1 /* of a frame pointer that is not known; see below */
#define SAVED_FP 1
#define SAVED_AT_FP 2
#define SAVED_LOST 3
#define SAVED_PAIR 4
#define SAVED_PAIR_HIGH 5
#define SAVED_RA 6
#define SAVED_RA_HIGH 7

struct row { u32 address; s16 offset; u8 kinds, slot; };
struct rows { struct row row[ROWS]; };
struct page { u32 row, count; };
struct pages { struct page page[PAGES]; };
struct mapping { u64 start, bias, size; u32 page, pages; }; /* without pages and with a page, it is of no file */
struct process { struct process_head head; struct mapping mapping[MAPPINGS]; };

BPF_TABLE("array_of_maps", u32, struct rows, unwind_rows, 128);
BPF_F_TABLE("array", u32, struct pages, unwind_index, 1, BPF_F_MMAPABLE);
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
long find_return(u32 round, struct walking *walking) {
  struct walk *w = walking->walk;
  u32 none = 0;
  u64 instance = w->instance;
  struct instances *known = return_instances.lookup(&none);
  if (!known || !instance) return 1;
  if (bpf_probe_read_kernel(&w->frame, 8, (void *)(instance + known->stack))) return 1;
  if (w->frame > w->sp - RETURN_SLOT) return 1; /* it is of a frame further up */
  if (bpf_probe_read_kernel(&w->address, 8, (void *)(instance + known->address))) return 1;
  if (bpf_probe_read_kernel(&w->instance, 8, (void *)(instance + known->next))) return 1;
  if (w->frame != w->sp - RETURN_SLOT || w->address == w->ip) return 0;
  w->ip = w->address;
  return 1;
}

long walk_frame(u32 round, struct walking *walking) {
  struct walk *w = walking->walk;
  struct process *p = (struct process *)walking->process;
  u64 pc = w->ip - 1 + w->exact;
  u32 kind = 0, saved = 0, slot = 0, none = 0;
  s64 offset = 0;
  u64 hash = (w->hash ^ w->ip) * 0x9e3779b97f4a7c15ULL;
  w->hash = hash ^ hash >> 32;
  if (walking->record) walking->record->address[w->depth & STACK_DEPTH] = w->ip | (w->exact ? EXACT : 0);
  w->depth++;

  u64 at = w->mapping & (MAPPINGS - 1);
  if (pc - p->mapping[at].start >= p->mapping[at].size) { /* another one than of the frame before */
    at = find_mapping(p, pc) & (MAPPINGS - 1);
    w->mapping = at;
  }
  struct mapping *m = &p->mapping[at];
  u64 inside = pc - m->bias, number = inside >> 12, pages = m->pages;
  u32 has_file = pages || !m->page;
  if (pc - m->start >= m->size) { /* most often code that was compiled since; user space finds out */
    pages = has_file = 0;
    if (walking->record) walking->record->address[(w->depth - 1) & STACK_DEPTH] |= UNKNOWN;
  }
  if (number < pages) {
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

  u64 base = w->sp;
  if (kind == FRAME_FP || kind == FRAME_AT_FP) base = w->fp;
  w->frame = base + offset;
  if (kind == FRAME_NONE) {
    if (w->depth == 1 && w->place == AT_ENTRY) { /* the function has not saved the frame pointer yet */
      w->frame = w->sp + RETURN_SLOT;
    } else {
      if (w->fp < w->sp) { /* 0 is the end of the chain, or of no meaning in code that keeps none */
        w->end = w->fp || !has_file ? END_CHAIN : END_OUTERMOST;
        return 1;
      }
      w->frame = w->fp + 16;
      saved = SAVED_PAIR;
      slot = 2;
    }
  } else if (kind == FRAME_END) {
    w->end = END_OUTERMOST;
    return 1;
  } else if (kind == FRAME_SIGNAL) {
    u64 sp = w->sp;
    w->end = END_UNREADABLE;
    if (read_stack(w, &w->fp, sp + SIGNAL_FP) || read_stack(w, &w->sp, sp + SIGNAL_SP)) return 1;
    if (read_stack(w, &w->ip, sp + SIGNAL_IP)) return 1;
#ifdef LINK_REGISTER
    if (read_stack(w, &w->lr, sp + SIGNAL_LR)) return 1;
#endif
    w->first_sp = w->sp; /* the handler may have had a stack of its own */
    w->exact = 1;
    w->end = END_DEPTH;
    return 0;
  } else if (kind == FRAME_PLT) {
    w->frame = w->sp + 8 + (((w->ip & 15) >= slot) << 3);
    saved = 0;
  } else if (kind == FRAME_AT_FP || kind == FRAME_AT_SP || kind == FRAME_BEHIND_SP) {
    if (read_stack(w, &w->frame, w->frame)) { w->end = END_UNREADABLE; return 1; }
    if (kind == FRAME_BEHIND_SP) w->frame += 8;
  } else if (kind == FRAME_RAX || kind == FRAME_R10 || kind == FRAME_R11) {
    if (w->depth > 1) { w->end = END_RULE; return 1; }
    w->frame = offset + (kind == FRAME_RAX ? w->rax : kind == FRAME_R10 ? w->r10 : w->r11);
  } else if (kind > FRAME_FP) {
    w->end = END_RULE;
    return 1;
  }
  if (w->frame <= w->sp && !(LEAF_FRAMES && w->depth == 1 && w->frame == w->sp)) { w->end = END_BACKWARDS; return 1; }

  u64 place = w->frame - 8 * (u64)slot;
  w->end = END_UNREADABLE;
#ifdef LINK_REGISTER
  w->address = w->lr;
  if (saved == SAVED_PAIR_HIGH || saved == SAVED_RA_HIGH) place = base + 8 * (u64)slot;
  if (saved == SAVED_FP || saved == SAVED_PAIR || saved == SAVED_PAIR_HIGH) {
    if (read_stack(w, &w->fp, place)) return 1;
    place += 8;
  }
  if (saved >= SAVED_PAIR) {
    if (read_stack(w, &w->address, place)) return 1;
  } else if (w->depth > 1 && !w->exact) { /* a function that was called has used the register since */
    w->end = END_RULE;
    return 1;
  }
  w->address = PLAIN(w->address);
#else
  if (read_stack(w, &w->address, w->frame - 8)) return 1;
  if (saved == SAVED_AT_FP) place = w->fp;
  if (saved == SAVED_FP || saved == SAVED_PAIR || saved == SAVED_AT_FP) {
    /* In epilogues, rules name places that have it no more. The walk goes on while no frame needs it. */
    if (read_stack(w, &w->fp, place)) w->fp = NO_ADDRESS;
  } else if (saved == SAVED_LOST) {
    w->fp = NO_ADDRESS;
  }
#endif
  w->sp = w->frame;
  w->ip = w->address;
  w->exact = 0;
  w->end = END_DEPTH;
  /* The trampoline of return probes begins a page. */
  if (!(w->ip & 4095)) bpf_loop(MOST_INSTANCES, (void *)CALLBACK(1), walking, 0);
  if (w->ip) return 0;
  w->end = END_OUTERMOST;
  return 1;
}
