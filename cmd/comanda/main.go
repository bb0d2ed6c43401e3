// Command comanda is the server, and the commands that talk to one.
package main

import (
	"context"
	"fmt"
	"os"
)

// version is set by the linker for a release.
var version = "dev"

func main() {
	cmd, err := execute(context.Background(), newRoot())
	if err != nil {
		fmt.Fprintln(os.Stderr, "comanda: "+errorLine(cmd, err))
	}
	os.Exit(exitCode(err))
}
