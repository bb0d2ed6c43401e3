// Command words gives the OpenAPI file the names of enum values that REST has.
package main

import (
	"os"
	"regexp"

	comandav1 "github.com/comanda-mq/comanda/api/comanda/v1"
)

func main() {
	file := os.Args[1]
	text, err := os.ReadFile(file) //nolint:forbidigo // a step of go generate
	if err != nil {
		panic(err) // go generate shows it
	}
	words := map[string]string{}
	enums := comandav1.File_comanda_v1_comanda_proto.Enums()
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		for j := range values.Len() {
			v := values.Get(j)
			words[string(v.Name())] = comandav1.Word(enums.Get(i), v.Number())
		}
	}
	text = regexp.MustCompile(`[A-Z]+(_[A-Z]+)+`).ReplaceAllFunc(text, func(name []byte) []byte {
		if word, ok := words[string(name)]; ok {
			return []byte(word)
		}
		return name
	})
	if err := os.WriteFile(file, text, 0o644); err != nil { //nolint:forbidigo // likewise
		panic(err) // go generate shows it
	}
}
