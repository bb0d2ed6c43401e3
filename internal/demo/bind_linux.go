package demo

import (
	"os/exec"
	"syscall"
)

// bind keeps the terminal's Ctrl-C from a process, which the shop ends in its own
// order, and has the kernel kill it with the shop, even after kill -9. The kernel
// watches the thread that starts the process: it must live as long as the shop.
func bind(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
