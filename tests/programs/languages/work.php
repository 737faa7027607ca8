<?php
// 997 calls of branch and of leaf, 97 of plain, 31 exceptions; then it says done and waits.
class Order {
    function leaf($n) { return $n + 1; }
    function branch($n) { return $this->leaf($n); }
}
function plain($n) { return $n; }
echo "ready\n";
fgets(STDIN);
$order = new Order;
for ($n = 0; $n < 997; $n++) $order->branch($n);
for ($n = 0; $n < 97; $n++) plain($n);
for ($n = 0; $n < 31; $n++) { try { throw new RuntimeException("no"); } catch (RuntimeException $e) {} }
echo "done\n";
fgets(STDIN);
