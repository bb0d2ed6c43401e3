//go:build !linux

package main

import "os/exec"

// bindToWorker does nothing more here than exec does: the child itself is
// killed when its context ends.
func bindToWorker(*exec.Cmd) {}
