package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
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
		for _, name := range named.FindAllString(textOf(t, doc), -1) {
			if !known[name] {
				t.Errorf("%s names %s, which there is not", filepath.Base(doc), name)
			}
		}
	}
}

// Each setting of a queue and each field of a message has a line in the table of its
// section of docs/semantics.md.
func TestSemanticsHaveEverySetting(t *testing.T) {
	contract := textOf(t, "../../api/comanda/v1/comanda.proto")
	semantics := textOf(t, "../../docs/semantics.md")
	for name, section := range map[string]string{"QueueSettings": "Settings of a queue", "NewMessage": "Sending"} {
		_, text, _ := strings.Cut(semantics, "\n## "+section+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		declared := regexp.MustCompile(`(?s)\nmessage ` + name + ` \{\n(.*?)\n\}`).FindStringSubmatch(contract)
		if declared == nil {
			t.Fatalf("the contract has no %s", name)
		}
		for _, field := range regexp.MustCompile(`(?m)^ +[\w.<>, ]+ (\w+) = \d+;`).FindAllStringSubmatch(declared[1], -1) {
			if !regexp.MustCompile("(?m)^\\|[^|]*`" + field[1] + "`").MatchString(text) {
				t.Errorf("docs/semantics.md, %s, says nothing of %s.%s", section, name, field[1])
			}
		}
	}
}

func textOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
