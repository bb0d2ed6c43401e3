// Package demo is the pizza shop behind 'comanda demo': three servers, a counter
// and kitchens, each but the counter a process of its own, and an evening on which
// kitchens and the leading server are killed and the shard of the orders is split.
//
// A customer is a key and an order is a message, which is confirmed at once. A
// kitchen is a worker: it says on its standard output what it does, each line before
// it has its effect, so that what a killed kitchen did is known too. The ledger
// keeps what the counter and the kitchens say, and the bill at the end is made of
// that and of what the servers answer about orders that nobody reported delivered.
//
// An order counts as accepted when a kitchen was told that its ack is durable. A
// kitchen that is killed may have baked a pizza whose ack never left; that pizza is
// made again, which the bill tells, and accepted once. The order of a customer's
// pizzas is that of the fences of their leases: they grow with each lease of a key,
// and don't depend on which kitchen's line is read first.
package demo
