package catalog

import "fmt"

// Enumerations are small numbers in memory and words in rows, which people read.

func word[E ~uint8](words []string, e E) string {
	if int(e) < len(words) {
		return words[e]
	}
	return fmt.Sprint(uint8(e))
}

func parseWord[E ~uint8](words []string, text []byte, e *E) error {
	for i, w := range words {
		if w == string(text) {
			*e = E(i)
			return nil
		}
	}
	return fmt.Errorf("unknown word %q: start the newer binary", text)
}
