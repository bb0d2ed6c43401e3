//go:build !linux

package main

import (
	"context"
	"os/exec"
)

// child is a command that is bound to the worker.
type child struct{}

// bindToWorker does nothing more here than exec does: the command's own process
// is killed at once when its context ends.
func bindToWorker(context.Context, *exec.Cmd) (child, error) { return child{}, nil }

func (child) ended() {}
