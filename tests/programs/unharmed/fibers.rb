# Fibers, which have stacks of their own, and exceptions and throws, which leave functions by longjmp. See case.h.
OUT = IO.for_fd(1, autoclose: false)
IN = IO.for_fd(0, autoclose: false)

def say(text) = OUT.syswrite(text + "\n")

def await_line
  until (c = IN.sysread(1)) == "\n" do end
rescue EOFError
  nil
end

def pause_inside
  return if $paused
  $paused = true
  say "inside"
  await_line
end

def traces(*names) = names.each { |name| say "traces #{name}" }

def fibers
  sum = 0
  workers = Array.new(7) do |number|
    Fiber.new do
      [1, 2, 3].each { |n| 20.times { |i| Fiber.yield(number * i * n); pause_inside } }
      -1
    end
  end
  until workers.empty?
    workers.delete_if { |fiber| (sum += fiber.resume) && !fiber.alive? }
  end
  say "sum #{sum}"
  traces "rb_fiber_resume*", "rb_fiber_yield*", "rb_vm_exec", "rb_yield", "rb_ary_each", "rb_protect", "rb_ensure"
end

def generators
  squares = Enumerator.new do |out|
    n = 0
    loop { pause_inside; out << n * n; n += 1 }
  end
  say "squares #{Array.new(97) { squares.next }.sum} #{squares.lazy.select(&:odd?).first(13).sum}"
  traces "rb_fiber_resume*", "rb_fiber_yield*", "rb_block_call*", "rb_yield", "rb_rescue2", "rb_vm_exec"
end

def deep(levels, &block) = levels.zero? ? block.call : [levels].each { |n| return deep(n - 1, &block) }

def exceptions
  caught = 0
  97.times do |n|
    deep(100) { pause_inside; raise ArgumentError, "no" if n.odd?; n }
  rescue ArgumentError
    caught += 1
  ensure
    caught += 1000
  end
  thrown = Array.new(97) { |n| catch(:out) { deep(50) { throw :out, n }; 1000 } }.sum
  sorted = Array.new(31) { [3, 1, 2].sort { |a, b| raise "no" if $paused; a <=> b } rescue 1 }.sum
  say "caught #{caught}, thrown #{thrown}, sorted #{sorted}"
  traces "rb_ary_each", "rb_yield", "rb_catch*", "rb_ensure", "rb_protect", "rb_rescue2", "rb_vm_exec", "rb_funcallv*"
end

def threads
  all = Array.new(8) { |t| Thread.new { Array.new(300) { |n| [n].each { |m| raise "no" if m.odd? } && 0 rescue 1 }.sum } }
  pause_inside.tap { deep(10) { 1 } }
  stopped = Thread.new { begin sleep ensure $cleaned = true end }
  Thread.pass until stopped.stop?
  stopped.kill
  stopped.join
  say "caught #{all.sum(&:value)}, cleaned #{$cleaned}"
  traces "rb_ary_each", "rb_yield", "rb_ensure", "rb_protect", "rb_rescue2", "rb_vm_exec"
end

say "ready"
await_line
send(ARGV.fetch(0).to_sym)
say "done"
exit 42
