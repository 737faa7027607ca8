"""PHP: what its probes tell, and the environment variable without which they do not fire.

The facts come from PHP's description of its probes, and from trying Debian's build.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.language import CallProbes, Language, StartCondition

_CALLS = CallProbes("php:function__entry", "php:function__return", "class_name", "function")
_COMPILED, _THROWN = "php:compile__file__entry", "php:exception__thrown"

LANGUAGE = Language(
    "php",
    programs=("php", "php[0-9]*", "php-fpm*", "php-cgi*"),
    libraries=("libphp*",),
    calls=(_CALLS,),
    loaded=(_COMPILED,),
    exceptions=(_THROWN,),
    conditions=(
        StartCondition(
            (_CALLS.entry, _CALLS.done, _COMPILED, _THROWN),
            variable="USE_ZEND_DTRACE=1",
            hint="start it with USE_ZEND_DTRACE=1 in its environment",
        ),
    ),
    hint="a PHP has probes if it was built with --enable-dtrace, as Debian's is",
)
