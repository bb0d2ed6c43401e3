// Package api holds the contract of Comanda: api/comanda/v1/comanda.proto, what
// is generated from it, and how. Run "go generate ./api" after a change of the
// .proto and commit the output with it; .ci/run refuses output that is not
// current.
package api

//go:generate go tool -modfile=../tools/buf.mod buf lint
//go:generate go tool -modfile=../tools/buf.mod buf generate
//go:generate go run ./words comanda/v1/comanda.swagger.json
