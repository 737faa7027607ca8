/*
 * Python's own frames of the current thread, by the structures of CPython: behind the walk along native frames, stacks.c
 * calls `begin_python` once, and `python_frame` for each frame. walker.py compiles this text together with unwind.c.
 *
 * What user space has written: in `unwind_processes`, which CPython a process runs, and where its _PyRuntime is; in
 * `python_layouts`, where its structures have what (usdtkit/signatures/cpython.py says what the members mean). All
 * memory is the process's: it may hold anything, so all loops have bounds, and a read that fails ends the walk.
 *
 * The names and the table of lines of a piece of code are sent once, when a stack has it for the first time, because a
 * process may have ended before anybody reads them from outside. The number of such a piece is a hash of its address and
 * of what it points to: its memory may be given to another one.
 */
#define MOST_STATES 1024  /* of threads, among which the current one is searched for */
#define LONGEST_NAME 255
#define LONGEST_FILE 511
#define FEW_LINES 511
#define MANY_LINES 4095
#define MARKED 1
#define BEFORE_SHIM 2
#define FIRST_SHIM 3
#define TEXT_HEAD 16      /* in a str: its length, its hash, its state */
#define BYTES_SIZE 16
#define BYTES_DATA 32

struct python_layout {
  u32 version, interpreters, interpreter_next, threads, thread_next, thread_interpreter, thread_id, thread_frame, indirect;
  u32 frame_size, previous, code, tag, at, at_is_number, entry, entries;
  u32 file, name, first_line, lines, instructions, ascii, text;
};
struct python_text { u32 size, width; }; /* in bytes, also of a character; a width of 0: it could not be read */
struct python_code {
  u64 id;
  u32 pid, version;
  s32 first_line;
  u32 lines_size;
  struct python_text name, file;
  u8 name_text[LONGEST_NAME + 1], file_text[LONGEST_FILE + 1];
};
struct python_code_small { struct python_code head; u8 lines[FEW_LINES + 1]; };
struct python_code_large { struct python_code head; u8 lines[MANY_LINES + 1]; };

BPF_ARRAY(python_layouts, struct python_layout, 32);
BPF_ARRAY(thread_pointer, u64, 1); /* where task_struct has what pthread_self() returns, 0 where that is not known */
BPF_TABLE("lru_hash", u32, u64, python_threads, 16384); /* the states of threads */
BPF_TABLE("lru_hash", u64, u32, python_codes_sent, 16384);
BPF_RINGBUF_OUTPUT(python_codes, 1024); /* in pages: room for 3,000 small ones */

/* Reads memory of the process. What is not in memory is brought in. */
static long read_python(void *into, u64 size, u64 address) {
  long error = bpf_probe_read_user(into, size, (void *)address);
  if (error) error = bpf_copy_from_user(into, size, (void *)address);
  return error;
}

static u64 mixed(u64 hash, u64 value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  return hash ^ hash >> 32;
}

/* Where the structures of the process's CPython have what; 0 if it has none. */
static struct python_layout *layout_of(struct walking *walking) {
  u32 number = walking->process->python - 1;
  return python_layouts.lookup(&number);
}

/* Puts the innermost frame of a thread's state into `frame`, 0 if there is none. */
static long innermost_python(struct python_walk *w, struct python_layout *l, u64 state) {
  w->frame = 0;
  if (read_python(&w->frame, 8, state + l->thread_frame)) return 1;
  if (!l->indirect || !w->frame) return 0;
  return read_python(&w->frame, 8, w->frame + l->indirect - 1);
}

/*
 * One step of the search for the state of the current thread: the next thread, or the next interpreter. A thread has
 * several states if it runs Python code in several interpreters. The newest of them is the one that it runs in, because
 * code of an older one has called it; those in which no code runs are left out.
 */
long find_python_thread(u32 round, struct walking *walking) {
  struct python_walk *w = &walking->walk->python;
  struct python_layout *l = layout_of(walking);
  if (!l) return 1;
  if (!w->state) {
    u64 interpreter = w->interpreter;
    if (!interpreter) { w->end = END_OUTERMOST; return 1; } /* it is no thread of Python */
    if (read_python(&w->state, 8, interpreter + l->threads)) return 1;
    if (read_python(&w->interpreter, 8, interpreter + l->interpreter_next)) return 1;
    return 0;
  }
  if (read_python(&w->word, 8, w->state + l->thread_id)) return 1;
  if (w->word[0] == w->self) {
    if (innermost_python(w, l, w->state)) return 1;
    if (w->frame) return 1;
  }
  return read_python(&w->state, 8, w->state + l->thread_next) != 0;
}

static u32 read_text(struct python_walk *w, struct python_layout *l, u8 *into, u64 most, u64 address, struct python_text *said) {
  u64 start = l->text, size;
  said->size = said->width = 0;
  if (read_python(&w->word, 24, address + TEXT_HEAD)) return 1;
  u64 state = w->word[2], width = state >> 2 & 7;
  if (!(state & 32) || !width) return 1;
  if (state & 64) start = l->ascii;
  size = w->word[0] * width;
  if (w->word[0] > most || size > most) size = most & ~(width - 1);
  if (read_python(into, size & most, address + start)) return 1;
  said->size = size;
  said->width = width;
  return 0;
}

/* Fills the record of a piece of code. */
static void describe_python(
    struct python_walk *w, struct python_layout *l, struct python_code *r, u8 *lines, u64 most, u64 id, u64 code, u64 size) {
  u64 name = w->pointer[(l->name - l->file) >> 3 & 3], table = w->pointer[(l->lines - l->file) >> 3 & 3];
  r->id = id;
  r->pid = bpf_get_current_pid_tgid() >> 32;
  r->version = l->version;
  r->first_line = 0;
  read_python(&r->first_line, 4, code + l->first_line);
  read_text(w, l, r->name_text, LONGEST_NAME, name, &r->name);
  read_text(w, l, r->file_text, LONGEST_FILE, w->pointer[0], &r->file);
  r->lines_size = size;
  if (size > most) size = most;
  if (read_python(lines, size & most, table + BYTES_DATA)) r->lines_size = 0;
}

/* Sends the names and lines of a piece of code, unless that has been done. */
static void send_python_code(struct python_walk *w, struct python_layout *l, u64 id, u64 code) {
  u32 sent = 1;
  u64 size = 0;
  if (python_codes_sent.lookup(&id)) return;
  if (read_python(&w->word, 8, w->pointer[(l->lines - l->file) >> 3 & 3] + BYTES_SIZE)) w->word[0] = 0;
  size = w->word[0];
  if (size <= FEW_LINES) {
    struct python_code_small *small = python_codes.ringbuf_reserve(sizeof(struct python_code_small));
    if (!small) return;
    describe_python(w, l, &small->head, small->lines, FEW_LINES, id, code, size);
    python_codes.ringbuf_submit(small, 0);
  } else {
    struct python_code_large *large = python_codes.ringbuf_reserve(sizeof(struct python_code_large));
    if (!large) return;
    describe_python(w, l, &large->head, large->lines, MANY_LINES, id, code, size);
    python_codes.ringbuf_submit(large, 0);
  }
  python_codes_sent.update(&id, &sent);
}

/* Adds a frame to the walk: the number of its piece of code, where in it, and 1 if it is an entry frame, else 0. */
static void keep_frame(struct walking *walking, u64 id, u64 at, u64 is_entry) {
  struct walk *walk = walking->walk;
  walk->hash = mixed(walk->hash, id + (at << 1) + is_entry);
  if (walking->record) {
    struct python_frame *frame = &walking->record->python[walk->python.depth & STACK_DEPTH];
    frame->code = id | is_entry;
    frame->at = at;
  }
  walk->python.depth++;
}

/* One frame of Python. Those of shims stand for the C code that has called the frame before. */
long python_frame(u32 round, struct walking *walking) {
  struct walk *walk = walking->walk;
  struct python_walk *w = &walk->python;
  struct python_layout *l = layout_of(walking);
  struct stack_record *record = walking->record;
  if (!l) return 1;
  w->end = END_OUTERMOST;
  if (!w->frame) return 1;
  w->end = END_UNREADABLE;
  if (read_python(&w->word, l->frame_size & 127, w->frame)) return 1;
  w->frame = w->word[l->previous >> 3 & 15];
  u64 mark = w->word[l->entry >> 3 & 15] >> ((l->entry & 7) << 3) & 255;
  if (l->entries == BEFORE_SHIM && mark >= FIRST_SHIM) {
    walk->hash = mixed(walk->hash, 1);
    if (record && w->depth) record->python[(w->depth - 1) & STACK_DEPTH].code |= 1;
    return 0;
  }
  w->end = END_DEPTH;
  if (w->depth >= STACK_DEPTH) return 1;
  u64 code = w->word[l->code >> 3 & 15] & ~(u64)l->tag, at = w->word[l->at >> 3 & 15];
  if (l->at_is_number) at = (s64)(s32)at;
  else at -= code + l->instructions;
  w->end = END_UNREADABLE;
  if (read_python(&w->pointer, 32, code + l->file)) return 1;
  u64 id = mixed(mixed(mixed(mixed(code, walk->process), w->pointer[0]), w->pointer[1] + w->pointer[2]), w->pointer[3]);
  id &= ~1ULL;
  if (record) send_python_code(w, l, id, code);
  keep_frame(walking, id, at, !l->entries | (l->entries == MARKED && mark));
  return 0;
}

/* Finds the innermost frame of the current thread. */
long begin_python(u32 round, struct walking *walking) {
  struct python_walk *w = &walking->walk->python;
  struct python_layout *l = layout_of(walking);
  u32 none = 0, thread = bpf_get_current_pid_tgid();
  u64 *place = thread_pointer.lookup(&none);
  if (!l || !place || !*place) return 1;
  w->end = END_UNREADABLE;
  if (bpf_probe_read_kernel(&w->self, 8, (void *)(bpf_get_current_task() + *place))) return 1;
  if (read_python(&w->word, 16, walking->process->runtime + l->interpreters)) return 1;
  u64 is_one = w->word[0] == w->word[1];
  w->state = 0;
  w->interpreter = w->word[0];
  u64 *known = python_threads.lookup(&thread);
  if (known && is_one && !read_python(&w->word, 8, *known + l->thread_id) && w->word[0] == w->self)
    innermost_python(w, l, *known);
  if (w->frame) return 1;
  /* Also of a thread that runs no Python code now: the memory of its state may have been given to another one. */
  bpf_loop(MOST_STATES, (void *)CALLBACK(3), walking, 0);
  u64 state = w->state;
  if (is_one && state) python_threads.update(&thread, &state);
  return 1;
}
