// Command bench compares Comanda with other durable queueing systems on one
// machine. It starts each server on loopback, with a process for each of its
// nodes and its data in a temporary directory on the same disk, puts the workloads of
// internal/load on it, checks that every confirmed message arrives, and prints
// medians with their range as Markdown. The systems take turns in each pass, so
// that what else the machine does falls on all of them.
//
//	cd bench && ./setup && go run . -workloads W1x1,W1x64,W1x256,W2,W3 -repeats 3 -systems comanda,redis,rabbitmq
//	go run . -workloads W1x1,W1x64,W2 -repeats 3 -systems comanda3,comanda,rabbitmq3,rabbitmq
//	go run . -workloads W1x64 -systems comanda3,comanda3=FILE -shards 4   # another build in the same run
package main
