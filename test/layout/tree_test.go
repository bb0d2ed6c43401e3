package layout

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// tree is the source of the project as the rules see it.
type tree struct {
	files   []file
	modules []string // folders below the root with a go.mod
}

// file is one Go file. path is relative to the root, with slashes.
type file struct {
	path   string
	syntax *ast.File
	fset   *token.FileSet
}

func (f file) folder() string { return path.Dir(f.path) }
func (f file) isTest() bool   { return strings.HasSuffix(f.path, "_test.go") }

// position tells path and line of a node.
func (f file) position(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

// imports returns the import path of each import with its local name, which is
// empty when the file gives none.
func (f file) imports() map[string]string {
	names := map[string]string{}
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has refused such a file
		}
		names[p] = ""
		if spec.Name != nil {
			names[p] = spec.Name.Name
		}
	}
	return names
}

// read parses every Go file of fsys. It walks the files itself instead of
// asking "go list": the go command then knows which files the test has read,
// and a cached pass is never stale.
func read(fsys fs.FS) (tree, error) {
	var t tree
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && isHidden(d.Name()):
			return fs.SkipDir
		case d.IsDir():
			return nil
		case d.Name() == "go.mod" && p != "go.mod":
			t.modules = append(t.modules, path.Dir(p))
		case strings.HasSuffix(p, ".go"):
			f, err := parse(fsys, p)
			if err != nil {
				return err
			}
			t.files = append(t.files, f)
		}
		return nil
	})
	return t, err
}

// isHidden tells folders that the go command does not look into either.
func isHidden(name string) bool {
	return name == "testdata" || name == "node_modules" || name[0] == '.' || name[0] == '_'
}

func parse(fsys fs.FS, p string) (file, error) {
	src, err := fs.ReadFile(fsys, p)
	if err != nil {
		return file{}, err
	}
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	return file{path: p, syntax: syntax, fset: fset}, err
}
