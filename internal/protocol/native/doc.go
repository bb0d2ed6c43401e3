// Package native speaks Comanda's own API: gRPC for programs, and the same
// contract (api/comanda/v1) as REST with JSON for curl and browsers. It decodes
// a request, calls one verb and encodes the answer; what a verb means is decided
// behind Verbs.
//
// What the contract has a place for but the server can't do yet is refused with
// UNIMPLEMENTED, and what the contract does not know is refused with
// INVALID_ARGUMENT: nothing that a client asked for is silently ignored.
//
// Every request passes the check of Host and Origin (host.go) and a recover
// (server.go) before anything else happens.
package native
