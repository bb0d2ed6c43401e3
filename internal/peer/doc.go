// Package peer carries bytes between the processes of a cluster: batches of
// Raft messages, calls and streams. What the bytes mean is the business of its
// callers.
//
// # Connections
//
// All connections come to one listener. A node opens at most one connection to
// each other node and sends its messages, requests and cancellations on it; the
// other side sends answers back. So there are two connections between two nodes
// that call each other, one for each direction. Nobody has to decide which of
// two that were opened at the same time stays, each side of a connection has one
// part to play, and a connection that one side believes in and the other does
// not holds up one direction only. A stream, and a call to an address whose node
// is not known, have a connection of their own: a snapshot delays no heartbeat.
//
//	Send, Call ─► line: outbox ─► pump ──── requests, messages ────► reader ─► Handler
//	             waiting calls ◄─ reader ◄──────── answers ───────── pump ◄─ outbox
//
// Frames are copied into the outbox, and the pump takes all that wait at once:
// under load one write carries many frames. Frames stay in order. TCP_NODELAY is
// Go's default.
//
// A side that wrote nothing for 1 s writes a ping. A side that waited for bytes
// for 3 s and heard none ends the connection. A link that broke or could not be
// made rests 50 ms to 2 s; meanwhile messages to the node are lost, and calls
// are told at once that nothing was sent. A line that ended takes what waited in
// it along: calls that had not left were not sent, messages are lost.
//
// A node is one process: while one of it is connected and heard, another that comes
// with the same node id and another boot number is refused, before Admit is asked.
//
// # The three outcomes of a call
//
// Answered; not sent (Unavailable, ResourceExhausted, TooLarge); or unknown
// (UnknownOutcome). A request counts as sent from the moment in which the pump
// takes it. Until then it can be withdrawn: its frame turns into a ping.
//
// # Format
//
// Integers are big-endian; uv is an unsigned varint, bytes are a uv length and
// the bytes. Each side begins with a hello:
//
//	magic "COMANDAP" | version 1 | length 2 | crc32c of the body 4 | body
//	body: purpose 1 | node 8 | boot 8 | node expected 8 | cluster bytes | [code bytes | text bytes]
//
// A code and a text in the answer are a refusal, and the connection ends. The
// magic, the version and the length stay as they are in all versions. A hello
// has at most 4 KiB and the handshake takes at most 10 s; 256 connections may be
// in it. Then come frames:
//
//	length 4 | kind 1 | id 8 | crc32c of the payload 4 | crc32c of these 17 bytes 4 | payload
//
//	kind      id     payload                            who
//	ping      0      none, or a withdrawn request       both
//	messages  0      n × (group uv | data bytes)        dialer
//	request   call   µs left uv, 0: none | request      dialer
//	hurry     call   none                               dialer
//	cancel    call   none                               dialer
//	answer    call   answer                             acceptor
//	failure   call   code bytes | text bytes            acceptor
//	header    0      header                             dialer of a stream
//	data      0      ≤ 256 KiB of the body              dialer of a stream
//	end       0      none                               dialer of a stream
//
// The header has a checksum of its own, so that a damaged length is seen before
// it is waited for. A frame that is damaged, larger than 32 MiB or of a kind
// that does not belong there ends the connection. A process without a node id may
// make one call at a time, in a frame of at most 64 KiB, and no more.
package peer
