/*
 * Ruby's own frames of the current thread, by the structures of its virtual machine: as pythonframes.c does it for Python,
 * whose state, record and ring are used, stacks.c calls `begin_ruby` once, and `ruby_frame` for each frame. walker.py
 * compiles this text behind that one.
 *
 * User space has written the address of the pointer to the virtual machine, and in `ruby_layouts`, where structures that
 * have moved have what (usdtkit/signatures/cruby.py says what the members and numbers mean). The tables that say the lines
 * of a piece of code are sent with its names; usdtkit/unwind/iseqs.py reads them.
 */
#define NOWHERE 0xffffffff /* of a member that a version has not */
#define RUBY_BODY 16
#define RUBY_BODY_SIZE 88
#define RUBY_FINISHES 0x20
#define RUBY_IS_C 0x80
#define RUBY_KIND 0x7fff0001
#define RUBY_BELOW_ALL 0x79990001
#define RUBY_TYPE 0x1f
#define RUBY_STRING 0x05
#define RUBY_ARRAY 0x07
#define RUBY_OUTSIDE (1 << 13)
#define FEW_POSITIONS 255
#define FEW_RUBY_LINES 255
#define MANY_POSITIONS 4095
#define MANY_RUBY_LINES 16383

struct ruby_layout {
  u32 ractors, ractor_next, threads, context, context_thread, native, thread_id, frame_size;
  u32 lines, line_count, positions, line_size, embedded, has_length;
};
struct ruby_code_large { struct python_code head; u8 tables[MANY_POSITIONS + MANY_RUBY_LINES + 2]; };

BPF_ARRAY(ruby_layouts, struct ruby_layout, 8);

static struct ruby_layout *ruby_layout_of(struct walking *walking) {
  u32 number = (walking->process->python & LANGUAGE_DETAIL) - 1;
  return ruby_layouts.lookup(&number);
}

/* Whether a thread of Ruby is the current one: 1, 0, or 2 if that cannot be read. */
static u32 is_current_ruby(struct python_walk *w, struct ruby_layout *l, u64 thread) {
  u64 native = thread;
  if (l->native != NOWHERE) {
    if (read_python(&w->word, 8, thread + l->native)) return 2;
    native = w->word[0];
    if (!native) return 0; /* it waits, and has no thread of the system */
  }
  if (read_python(&w->word, 8, native + l->thread_id)) return 2;
  return w->word[0] == w->self;
}

/*
 * One step of the search for the current thread: the next thread, or the next ractor. Both are rings: pointer[0] and
 * pointer[1] are their heads, `interpreter` and `state` the nodes that were reached, 0 behind the last one. What is found
 * is put into `frame`.
 */
long find_ruby_thread(u32 round, struct walking *walking) {
  struct python_walk *w = &walking->walk->python;
  struct ruby_layout *l = ruby_layout_of(walking);
  if (!l) return 1;
  if (!w->state) {
    if (!w->interpreter) { w->end = END_OUTERMOST; return 1; } /* it is no thread of Ruby */
    w->pointer[1] = w->interpreter - l->ractor_next + l->threads;
    if (read_python(&w->state, 8, w->pointer[1])) return 1;
    if (read_python(&w->interpreter, 8, w->interpreter)) return 1;
    if (w->interpreter == w->pointer[0]) w->interpreter = 0;
    return 0;
  }
  if (w->state == w->pointer[1]) { w->state = 0; return 0; }
  u32 is_current = is_current_ruby(w, l, w->state);
  if (is_current == 1) w->frame = w->state;
  if (is_current) return 1;
  return read_python(&w->state, 8, w->state) != 0;
}

/* Reads a String. */
static void read_ruby_text(struct python_walk *w, struct ruby_layout *l, u8 *into, u64 most, u64 address, struct python_text *said) {
  said->size = said->width = 0;
  if (read_python(&w->word, 32, address)) return;
  u64 flags = w->word[0], size = flags >> 14 & 31, start = address + l->embedded;
  if ((flags & RUBY_TYPE) != RUBY_STRING) return;
  if (flags & RUBY_OUTSIDE) start = w->word[3];
  if (flags & RUBY_OUTSIDE || l->has_length) size = w->word[2];
  if (size > most) size = most;
  if (read_python(into, size & most, start)) return;
  said->size = size;
  said->width = 1;
}

/* The String of a path: itself, or the first element of an Array. */
static u64 ruby_path(struct python_walk *w, u64 address) {
  if (read_python(&w->word, 40, address)) return 0;
  if ((w->word[0] & RUBY_TYPE) != RUBY_ARRAY) return address;
  if (w->word[0] & RUBY_OUTSIDE) return w->word[2];
  if (read_python(&w->word, 8, w->word[4])) return 0;
  return w->word[0];
}

/* Fills the record of a piece of code. `pointer` has its body, its size in words, its path and its name. */
static void describe_ruby(
    struct python_walk *w, struct ruby_layout *l, struct python_code *r, u8 *tables, u64 most_positions, u64 most_lines, u64 id,
    u64 positions, u64 lines, u64 count) {
  u64 body = w->pointer[0], at = 0, table = body + l->lines;
  r->id = id;
  r->pid = bpf_get_current_pid_tgid() >> 32;
  r->version = RUBY << LANGUAGE_SHIFT | l->line_size;
  read_ruby_text(w, l, r->name_text, LONGEST_NAME, w->pointer[3], &r->name);
  read_ruby_text(w, l, r->file_text, LONGEST_FILE, ruby_path(w, w->pointer[2]), &r->file);
  r->first_line = r->lines_size = 0;
  if (count != 1) {
    if (read_python(&w->word, 8, body + l->positions)) return;
    at = w->word[0];
    if (read_python(&w->word, 8, table)) return;
    table = w->word[0];
  }
  if (positions > most_positions) positions = most_positions;
  if (lines > most_lines) lines = most_lines;
  if (positions && read_python(tables, positions & most_positions, at)) return;
  if (read_python(tables + (positions & most_positions), lines & most_lines, table)) return;
  r->first_line = positions;
  r->lines_size = positions + lines;
}

/* Sends the names and tables of a piece of code, unless that has been done. */
static void send_ruby_code(struct python_walk *w, struct ruby_layout *l, u64 id) {
  u32 sent = 1;
  u64 positions = 48, lines = 4, size = w->pointer[1];
  if (python_codes_sent.lookup(&id)) return;
  if (read_python(&w->word, 8, w->pointer[0] + l->line_count)) return;
  u64 count = (u32)w->word[0];
  if (size > 54) positions += ((size - 54 + 511) >> 9) * 80;
  if (count == 1) positions = 0;
  else lines = count * l->line_size;
  if (positions <= FEW_POSITIONS && lines <= FEW_RUBY_LINES) {
    struct python_code_small *small = python_codes.ringbuf_reserve(sizeof(struct python_code_small));
    if (!small) return;
    describe_ruby(w, l, &small->head, small->lines, FEW_POSITIONS, FEW_RUBY_LINES, id, positions, lines, count);
    python_codes.ringbuf_submit(small, 0);
  } else {
    struct ruby_code_large *large = python_codes.ringbuf_reserve(sizeof(struct ruby_code_large));
    if (!large) return;
    describe_ruby(w, l, &large->head, large->tables, MANY_POSITIONS, MANY_RUBY_LINES, id, positions, lines, count);
    python_codes.ringbuf_submit(large, 0);
  }
  python_codes_sent.update(&id, &sent);
}

/* One frame. Those of functions in C are left out. `interpreter` is the end of the stack, where the outermost frame is. */
long ruby_frame(u32 round, struct walking *walking) {
  struct walk *walk = walking->walk;
  struct python_walk *w = &walk->python;
  struct ruby_layout *l = ruby_layout_of(walking);
  if (!l) return 1;
  w->end = END_OUTERMOST;
  if (w->frame >= w->interpreter) return 1;
  w->end = END_UNREADABLE;
  if (read_python(&w->word, l->frame_size & 127, w->frame)) return 1;
  w->frame += l->frame_size;
  u64 pc = w->word[0], iseq = w->word[2];
  if (!iseq) return 0;
  if (read_python(&w->pointer, 8, w->word[4])) return 1;
  u64 flags = w->pointer[0], at = ~0ULL;
  if (flags & RUBY_IS_C || (flags & RUBY_KIND) == RUBY_BELOW_ALL) return 0;
  w->end = END_DEPTH;
  if (w->depth >= STACK_DEPTH) return 1;
  w->end = END_UNREADABLE;
  if (read_python(&w->pointer, 8, iseq + RUBY_BODY)) return 1;
  if (read_python(&w->word, RUBY_BODY_SIZE, w->pointer[0])) return 1;
  w->pointer[1] = w->word[0] >> 32;
  w->pointer[2] = w->word[8];
  w->pointer[3] = w->word[10];
  if (pc) {
    at = (pc - w->word[1]) >> 3;
    if (at) at--;
  }
  u64 id = mixed(mixed(mixed(mixed(w->pointer[0], walk->process), w->word[1]), w->pointer[2]), w->pointer[3]);
  u64 finishes = flags >> 5 & 1;
  id &= ~1ULL;
  if (walking->record) send_ruby_code(w, l, id);
  keep_frame(walking, id, at, finishes);
  return 0;
}

/* Puts the innermost frame of a thread into `frame`, of the fiber that it runs, and the end of its stack into `interpreter`. */
static u32 enter_ruby(struct python_walk *w, struct ruby_layout *l, u64 thread) {
  w->frame = 0;
  if (read_python(&w->word, 8, thread + l->context)) return 0;
  if (read_python(&w->word, 64, w->word[0])) return 0; /* the stack, its size in words, the frame, and more */
  w->interpreter = w->word[0] + (w->word[1] << 3);
  if (w->word[l->context_thread >> 3 & 7] != thread || w->word[2] < w->word[0] || w->word[2] > w->interpreter) return 0;
  w->frame = w->word[2];
  return w->frame != 0;
}

/* Finds the innermost frame of the current thread. */
long begin_ruby(u32 round, struct walking *walking) {
  struct python_walk *w = &walking->walk->python;
  struct ruby_layout *l = ruby_layout_of(walking);
  u32 none = 0, thread = bpf_get_current_pid_tgid();
  u64 *place = thread_pointer.lookup(&none);
  if (!l || !place || !*place) return 1;
  w->end = END_UNREADABLE;
  if (bpf_probe_read_kernel(&w->self, 8, (void *)(bpf_get_current_task() + *place))) return 1;
  u64 *known = python_threads.lookup(&thread);
  /* A thread of the system runs one of Ruby after the other. One that has ended has no stack, or its memory is another's. */
  if (known && is_current_ruby(w, l, *known) == 1 && enter_ruby(w, l, *known)) return 1;
  if (read_python(&w->word, 8, walking->process->runtime)) return 1;
  u64 machine = w->word[0];
  if (!machine) { w->end = END_OUTERMOST; return 1; } /* it has not begun yet */
  w->frame = w->state = w->interpreter = 0;
  if (l->ractors == NOWHERE) {
    w->pointer[1] = machine + l->threads;
    if (read_python(&w->state, 8, w->pointer[1])) return 1;
  } else {
    w->pointer[0] = machine + l->ractors;
    if (read_python(&w->interpreter, 8, w->pointer[0])) return 1;
    if (w->interpreter == w->pointer[0]) w->interpreter = 0;
  }
  bpf_loop(MOST_STATES, (void *)CALLBACK(8), walking, 0);
  if (!w->frame) return 1;
  u64 found = w->frame;
  python_threads.update(&thread, &found);
  enter_ruby(w, l, found);
  return 1;
}
