package main

import (
	"os/exec"
	"syscall"
)

// bindToWorker puts the child in a group of its own, so that the terminal's
// Ctrl-C does not reach it and all of it can be killed, and has the kernel kill
// it when the worker dies.
func bindToWorker(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
