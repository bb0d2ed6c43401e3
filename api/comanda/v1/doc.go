// Package comandav1 is version 1 of the contract between Comanda and its
// clients, generated from comanda.proto: messages, gRPC clients and servers, and
// the REST gateway. The same contract for other languages is
// comanda.swagger.json.
package comandav1
