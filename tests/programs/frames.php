<?php
// Calls itself in the ways that it is told on a line of its input, one within the other, as "method evaluated include".
// Then it says which frames PHP has, sleeps, and waits for the next line, all in one place.

namespace Shop;

function said($frames, $line)
{
    $places = [[__FILE__, $line]];
    $names = [];
    foreach ($frames as $frame) {
        $places[] = isset($frame["file"]) ? [$frame["file"], $frame["line"]] : null;
        $is_code = \in_array($frame["function"], ["include", "eval"]);
        $names[] = $is_code ? "{main}" : (isset($frame["class"]) ? $frame["class"] . "::" : "") . $frame["function"];
    }
    $names[] = "{main}";
    $lines = [];
    foreach ($names as $n => $name) {
        if ($places[$n] !== null) {
            $lines[] = \implode("\t", [$name, ...$places[$n]]);
        }
    }
    return \implode("\v", $lines) . "\n";
}

class Text
{
    public $ways;
    public $go;
    public function __toString()
    {
        ($this->go)->go($this->ways);
        return "";
    }
    public function __destruct()
    {
        if ($this->ways !== null && \count($this->ways) > 100) {
            $this->go->go($this->ways);
        }
    }
    public function __call($name, $arguments)
    {
        return $this->go->go($arguments[0]);
    }
}

class Ways
{
    public function go($ways)
    {
        $first = \array_shift($ways);
        return $first === null ? self::stop() : $this->$first($ways);
    }
    public static function stop()
    {
        echo said(\debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS), __LINE__); \usleep(0); $GLOBALS["next"] = \fgets(STDIN);
    }
    public function plain($ways)
    {
        return $this->go($ways);
    }
    public static function fixed($ways)
    {
        return (new self())->go($ways);
    }
    public function closure($ways)
    {
        $call = function ($these) {
            return $this->go($these);
        };
        return $call($ways);
    }
    public function arrow($ways)
    {
        return (fn() => $this->go($ways))();
    }
    public function mapped($ways)
    {
        return \array_map([$this, "go"], [$ways]);
    }
    public function sorted($ways)
    {
        $numbers = [1, 2];
        $called = false;
        \usort($numbers, function ($a, $b) use (&$called, $ways) {
            if (!$called) {
                $called = true;
                $this->go($ways);
            }
            return $a <=> $b;
        });
    }
    public function called($ways)
    {
        return \call_user_func("Shop\\Ways::fixed", $ways);
    }
    public function generated($ways)
    {
        foreach ($this->generator($ways) as $one) {
            $one = 0;
        }
    }
    public function generator($ways)
    {
        yield 1;
        $this->go($ways);
    }
    public function evaluated($ways)
    {
        return eval("\n\nreturn \$this->go(\$ways);");
    }
    public function included($ways)
    {
        return include __DIR__ . "/included.php";
    }
    public function magic($ways)
    {
        $text = new Text();
        $text->go = $this;
        return $text->absent($ways);
    }
    public function text($ways)
    {
        $text = new Text();
        [$text->go, $text->ways] = [$this, $ways];
        return "in a text: $text";
    }
    public function rescued($ways)
    {
        try {
            throw new \RuntimeException("wrong");
        } catch (\RuntimeException $error) {
            return $this->go($ways);
        } finally {
            $error = null;
        }
    }
    public function fiber($ways)
    {
        $fiber = new \Fiber(function () use ($ways) {
            $this->go($ways);
        });
        $fiber->start();
    }
    public function reflected($ways)
    {
        return (new \ReflectionMethod($this, "plain"))->invoke($this, $ways);
    }
    public function größe($ways)
    {
        return $this->go($ways);
    }
}

$next = \fgets(STDIN);
while ($next) {
    (new Ways())->go(\preg_split("/\\s+/", $next, -1, PREG_SPLIT_NO_EMPTY));
}
