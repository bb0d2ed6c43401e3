//go:build !nosync

package node

import "github.com/cockroachdb/pebble/v2/vfs"

// disk is the file system that a server uses unless it is given another.
func disk() vfs.FS { return vfs.Default }
