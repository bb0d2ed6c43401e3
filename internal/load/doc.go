// Package load puts workloads on a queueing system and checks, in every run,
// that each confirmed message arrives. A system is reached through a small
// driver; the workloads know none of them. `comanda bench` and the module bench
// use it.
//
//	W1xN    N producers, each sends one message at a time and waits until it is confirmed
//	W2      64 producers and 64 consumers at once, every message acked; a handler
//	        waits for its ack before it takes the next message
//	W2free  the same with handlers that do not wait; their acks are as durable
//	W2@R    W2 at R messages a second: the latency from send to handler
//	W3      a preloaded queue, drained by 64 handlers that wait for their acks
//	W3free  the same with handlers that do not wait
//	W4xN    as W1, by 64 producers, in batches of N
//	W6      a backlog: fill it, then send, and drain a part of it
//
// W5 (start and idle) needs to start the server's process: it is in bench.
package load
