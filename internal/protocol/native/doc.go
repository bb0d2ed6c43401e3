// Package native speaks Comanda's own API: gRPC for programs, and the same
// contract (api/comanda/v1) as REST with JSON for curl and browsers. It decodes
// a request, calls one verb and encodes the answer; what a verb means is decided
// behind Verbs.
//
// What the contract does not know is refused, a field or header with
// INVALID_ARGUMENT and a call with UNIMPLEMENTED: nothing that a client asked for is
// silently ignored.
//
// Every request passes the check of Host and Origin (host.go) and a recover
// (server.go) before anything else happens.
package native
