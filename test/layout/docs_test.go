package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Tests that the documents name are there: room.TestName.
func TestDocsNameTestsThatExist(t *testing.T) {
	known := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, _ os.DirEntry, err error) error {
		if ok, _ := filepath.Match("*_test.go", filepath.Base(path)); err != nil || !ok {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			known[filepath.Base(filepath.Dir(path))+"."+string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatal(docs, err)
	}
	named := regexp.MustCompile(`\b[a-z]+\.Test\w+`)
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllString(string(text), -1) {
			if !known[name] {
				t.Errorf("%s names %s, which there is not", filepath.Base(doc), name)
			}
		}
	}
}
