package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/comanda-mq/comanda/internal/raftlog"
)

// storage shows raft one group's part of the log. Raft calls it in the loop.
type storage struct {
	log   *raftlog.Log
	group uint64
	hard  *raftpb.HardState // at the start
	conf  *raftpb.ConfState // at the applied index
	// snapshot makes the metadata of a snapshot.
	snapshot func() (*raftpb.Snapshot, error)
}

// logFailure is what storage panics with when the log can't be read: raft has
// no other way to stop. The loop makes it Run's error.
type logFailure struct{ err error }

func (f *logFailure) Error() string { return f.err.Error() }
func (f *logFailure) Unwrap() error { return f.err }

func (s *storage) check(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrCompacted):
		return raft.ErrCompacted // raft compares without unwrapping
	case errors.Is(err, raft.ErrUnavailable):
		return raft.ErrUnavailable
	default:
		panic(&logFailure{fmt.Errorf("replica: group %d: %w", s.group, err)})
	}
}

func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hard, s.conf, nil
}

func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	es, err := s.log.Entries(s.group, lo, hi, maxSize)
	return es, s.check(err)
}

func (s *storage) Term(i uint64) (uint64, error) {
	t, err := s.log.Term(s.group, i)
	return t, s.check(err)
}

func (s *storage) LastIndex() (uint64, error) {
	i, err := s.log.LastIndex(s.group)
	return i, s.check(err)
}

func (s *storage) FirstIndex() (uint64, error) {
	i, err := s.log.FirstIndex(s.group)
	return i, s.check(err)
}

// Snapshot is asked for when a follower needs entries that are no longer in the
// log.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) { return s.snapshot() }

// raftLogger writes what raft has to say; its notes on every election are for
// debugging.
type raftLogger struct{ *slog.Logger }

func (l raftLogger) logf(level slog.Level, format string, v []any) {
	if l.Enabled(context.Background(), level) {
		l.Log(context.Background(), level, "raft", "text", fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) log(level slog.Level, v []any) { l.logf(level, "%s", []any{fmt.Sprint(v...)}) }

func (l raftLogger) Debug(v ...any)              { l.log(slog.LevelDebug, v) }
func (l raftLogger) Debugf(f string, v ...any)   { l.logf(slog.LevelDebug, f, v) }
func (l raftLogger) Info(v ...any)               { l.log(slog.LevelDebug, v) }
func (l raftLogger) Infof(f string, v ...any)    { l.logf(slog.LevelDebug, f, v) }
func (l raftLogger) Warning(v ...any)            { l.log(slog.LevelWarn, v) }
func (l raftLogger) Warningf(f string, v ...any) { l.logf(slog.LevelWarn, f, v) }
func (l raftLogger) Error(v ...any)              { l.log(slog.LevelError, v) }
func (l raftLogger) Errorf(f string, v ...any)   { l.logf(slog.LevelError, f, v) }
func (l raftLogger) Fatal(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l raftLogger) Panic(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
