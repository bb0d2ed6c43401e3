package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/comanda-mq/comanda/client"
)

// Exit codes, which scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitUnknown     = 6 // it may have happened
)

// usage is a mistake in the command line.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usageError(err error) error { return usage{err} }

func exitCode(err error) int {
	var u usage
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &u):
		return exitUsage
	}
	switch client.CodeOf(err) {
	case client.CodeInvalidArgument:
		return exitUsage
	case client.CodeQueueNotFound, client.CodeMessageNotFound, client.CodeNotFound, client.CodeGone:
		return exitNotFound
	case client.CodeQueueExists, client.CodeTooLarge, client.CodeFenced, client.CodeNotDead, client.CodeEnded, client.CodeCancelRequested, client.CodeResourceExhausted,
		client.CodeConflict, client.CodeBatchRefused, client.CodeNodeRemoved, client.CodeSessionEnded, client.CodeUnimplemented, client.CodePermissionDenied, client.CodeForeignOrigin:
		return exitRefused
	case client.CodeUnreachable, client.CodeUnavailable, client.CodeNotLeader, client.CodeWrongShard:
		return exitUnreachable
	case client.CodeUnknownOutcome:
		return exitUnknown
	default:
		return exitFailed
	}
}

// errorLine says in one line what went wrong with cmd, and what to do.
func errorLine(cmd *cobra.Command, err error) string {
	text := err.Error()
	var e *client.Error
	var u usage
	switch {
	case errors.As(err, &u):
		text += fmt.Sprintf(" (see '%s --help')", cmd.CommandPath())
	case errors.As(err, &e):
		text = strings.Replace(text, e.Error(), e.Message, 1)
		create := "comanda queue create"
		if e.Code == client.CodeQueueNotFound && !strings.Contains(text, create) && strings.Contains(cmd.Use, "QUEUE") {
			text += fmt.Sprintf(": create it with '%s %s'", create, cmd.Flags().Arg(0))
		}
		text += fmt.Sprintf(" (%s)", e.Code)
	}
	return strings.Join(strings.Fields(text), " ")
}
