<?php
// Fibers, which have stacks of their own, and what leaves functions by longjmp: exit. See case.h.
function say($text) { fwrite(STDOUT, "$text\n"); }
function await_line() { fgets(STDIN); }
function pause_inside() {
    static $paused = false;
    if ($paused) return;
    $paused = true;
    say("inside");
    await_line();
}
function traces(...$names) { foreach ($names as $name) say("traces $name"); }

function yields($depth, $value) {
    if ($depth > 0) return yields($depth - 1, $value);
    pause_inside();
    return Fiber::suspend($value) + 1;
}

function fibers() {
    $sum = 0;
    $all = [];
    for ($number = 0; $number < 7; $number++) {
        $fiber = new Fiber(function ($number) {
            $got = 0;
            foreach (range(1, 60) as $n) $got += array_sum(array_map(fn ($m) => yields(5, $m), [$number * $n]));
            return $got;
        });
        $sum += $fiber->start($number);
        $all[] = $fiber;
    }
    while ($all) {
        foreach ($all as $key => $fiber) {
            $given = $fiber->resume(3);
            if ($fiber->isTerminated()) {
                $sum += $fiber->getReturn();
                unset($all[$key]);
            } else $sum += $given;
        }
    }
    say("sum $sum");
    traces("execute_ex", "zend_call_function", "zend_fiber_switch_context", "zend_execute");
}

function exceptions() {
    $caught = 0;
    for ($n = 0; $n < 97; $n++) {
        $fiber = new Fiber(function ($n) {
            yields(3, $n);
            if ($n % 2) throw new RuntimeException("no");
        });
        try {
            $fiber->start($n);
            if ($n % 3) $fiber->resume(1); else $fiber->throw(new LogicException("other"));
        } catch (RuntimeException | LogicException $error) {
            $caught += strlen($error->getMessage());
        }
    }
    say("caught $caught");
    traces("execute_ex", "zend_call_function", "zend_fiber_switch_context", "zend_throw_exception*", "zend_call_known_*");
}

function sorting() {
    $numbers = [];
    for ($n = 0; $n < 97; $n++) $numbers[] = $n * 61 % 97;
    usort($numbers, function ($a, $b) { pause_inside(); return $a <=> $b; });
    say(implode(" ", array_slice($numbers, 0, 5)));
    traces("zend_call_function", "zend_sort", "zend_hash_sort*", "execute_ex", "php_request_shutdown");
    usort($numbers, function ($a, $b) {
        say("done");
        exit(42);
    });
}

say("ready");
await_line();
$argv[1]();
say("done");
exit(42);
