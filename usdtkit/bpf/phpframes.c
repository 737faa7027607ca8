/*
 * PHP's own frames of the current thread, by the structures of the Zend engine: as pythonframes.c does it for Python,
 * whose state, record and ring are used, stacks.c calls `begin_php` once, and `php_frame` for each frame. walker.py compiles
 * this text behind that one.
 *
 * User space has written which offset the file of a function has in this version, and the address of executor_globals
 * (usdtkit/signatures/zend.py says what the numbers mean). PHP without thread safety runs in the main thread alone.
 * A frame leads to its line, so that of a function only names are sent: its class is where Python has a table of lines.
 */
#define PHP_VERSION (PHP << LANGUAGE_SHIFT)
#define PHP_CURRENT 488
#define PHP_FRAME_SIZE 56
#define PHP_INTERNAL 1
#define PHP_USER 2
#define PHP_EVALUATED 4
#define PHP_LINE 24
#define PHP_CLASS_NAME 8
#define PHP_LENGTH 16
#define PHP_CHARACTERS 24

/* Reads a string of the engine, or nothing where there is none, which is no error. Returns its size in memory. */
static u64 read_php_text(struct python_walk *w, u8 *into, u64 most, u64 address, struct python_text *said) {
  said->size = 0;
  said->width = !address;
  if (!address || read_python(&w->word, 8, address + PHP_LENGTH)) return 0;
  u64 size = w->word[0];
  if (size > most) size = most;
  if (read_python(into, size & most, address + PHP_CHARACTERS)) return 0;
  said->size = size;
  said->width = 1;
  return size;
}

/* Sends the names of a function, unless that has been done. `pointer` has those of its name, class and file. */
static void send_php_function(struct python_walk *w, u64 id) {
  u32 sent = 1;
  struct python_text class = {.size = 0, .width = 0};
  if (python_codes_sent.lookup(&id)) return;
  struct python_code_small *r = python_codes.ringbuf_reserve(sizeof(struct python_code_small));
  if (!r) return;
  r->head.id = id;
  r->head.pid = bpf_get_current_pid_tgid() >> 32;
  r->head.version = PHP_VERSION;
  r->head.first_line = 0;
  read_php_text(w, r->head.name_text, LONGEST_NAME, w->pointer[1], &r->head.name);
  read_php_text(w, r->head.file_text, LONGEST_FILE, w->pointer[3], &r->head.file);
  u64 name = 0;
  if (w->pointer[2] && !read_python(&w->word, 8, w->pointer[2] + PHP_CLASS_NAME)) name = w->word[0];
  r->head.lines_size = read_php_text(w, r->lines, FEW_LINES, name, &class);
  python_codes.ringbuf_submit(r, 0);
  python_codes_sent.update(&id, &sent);
}

/* One frame. Those of functions in C, and of generators that wait, are left out. */
long php_frame(u32 round, struct walking *walking) {
  struct walk *walk = walking->walk;
  struct python_walk *w = &walk->python;
  w->end = END_OUTERMOST;
  if (!w->frame) return 1;
  w->end = END_UNREADABLE;
  if (read_python(&w->word, PHP_FRAME_SIZE, w->frame)) return 1;
  u64 instruction = w->word[0], function = w->word[3], is_top = w->word[5] >> 17 & 1;
  w->frame = w->word[6];
  if (!function) return 0;
  if (read_python(&w->pointer, 24, function)) return 1;
  u64 type = w->pointer[0] & 255;
  if (type == PHP_INTERNAL) return 0;
  if (type != PHP_USER && type != PHP_EVALUATED) return 1;
  w->end = END_DEPTH;
  if (w->depth >= STACK_DEPTH) return 1;
  w->end = END_UNREADABLE;
  if (read_python(&w->word, 8, function + (walking->process->python & LANGUAGE_DETAIL))) return 1;
  w->pointer[3] = w->word[0];
  w->word[0] = 0;
  if (instruction) read_python(&w->word, 4, instruction + PHP_LINE);
  u64 line = (u32)w->word[0];
  u64 id = mixed(mixed(mixed(mixed(function, walk->process), w->pointer[1]), w->pointer[2]), w->pointer[3]);
  id &= ~1ULL;
  if (walking->record) send_php_function(w, id);
  keep_frame(walking, id, line, is_top);
  return 0;
}

/* Finds the innermost frame, if this is the thread that runs PHP. */
long begin_php(u32 round, struct walking *walking) {
  struct python_walk *w = &walking->walk->python;
  u64 thread = bpf_get_current_pid_tgid();
  if ((u32)thread != thread >> 32) return 1;
  if (read_python(&w->frame, 8, walking->process->runtime + PHP_CURRENT)) w->end = END_UNREADABLE;
  return 1;
}
