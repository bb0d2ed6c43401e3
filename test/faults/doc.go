// Package faults runs real server processes and does to them what happens to
// servers: they are killed, their disk loses its power, fills up or fails, their
// memory is short, their clients hang, their directory is damaged. After each
// fault one checker compares what was confirmed with what is there.
//
// The tests want Linux, root, strace, and a loop device, and fail without them:
// a fault test that was skipped has shown nothing. They are built with the tag
// faults, so that ordinary test runs stay fast:
//
//	go test -race -tags faults ./test/faults/... -rounds 50
//
// Tests that compare times or rates, or are over soon, run by themselves. The others
// mostly wait, and run as many at a time as there are processors, or -parallel says.
//
// test/faults takes the seed of its random moments from -seed and prints it.
// The moments themselves depend on the machine, so a seed narrows a failure
// down and does not replay it exactly.
package faults
