//go:build !race

package raftlog

const racing = false
