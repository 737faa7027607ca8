# 997 calls of branch and of leaf, 97 orders made, 13 collections, 31 exceptions; then it says done and waits.
class Order
  def leaf(n) = n + 1
  def branch(n) = leaf(n)
end
$calls = TracePoint.new(:call, :return) {}
$calls.enable
$stdout.sync = true
puts "ready"
$stdin.gets
order = Order.new
997.times { |n| order.branch(n) }
97.times { Order.new }
31.times { begin; raise ArgumentError, "no"; rescue ArgumentError; end }
13.times { GC.start }
puts "done"
$stdin.gets
