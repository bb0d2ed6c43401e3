package layout

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
)

// problems returns a sentence for each place where t breaks a rule.
func problems(t tree) []string {
	var found []string
	for _, f := range t.files {
		found = append(found, checkImports(f)...)
		found = append(found, checkPurity(f)...)
	}
	found = append(found, checkComments(t.files)...)
	return append(found, checkModules(t)...)
}

// roomOf returns the room that a file or package below the root belongs to. The
// name of a room "x/*" becomes that of the folder in x.
func roomOf(p string) (room, bool) {
	for _, r := range rooms {
		if name, fits := fit(r.name, p); fits {
			r.name = name
			return r, true
		}
	}
	return room{}, false
}

// fit tells whether p lies in the folder that pattern names, and that folder.
func fit(pattern, p string) (folder string, fits bool) {
	parent, each := strings.CutSuffix(pattern, "/*")
	if !each {
		return pattern, inside(p, pattern)
	}
	rest, fits := strings.CutPrefix(p, parent+"/")
	child, _, _ := strings.Cut(rest, "/")
	return path.Join(parent, child), fits && !strings.HasSuffix(child, ".go")
}

func inside(p, folder string) bool {
	return p == folder || strings.HasPrefix(p, folder+"/")
}

// checkImports keeps files in rooms and imports in their directions. A test may
// bring in what it needs; only its place is checked.
func checkImports(f file) []string {
	from, ok := roomOf(f.path)
	if !ok {
		return []string{f.path + ": lives in no room; move it, or add its room to the plan in test/layout"}
	}
	if f.isTest() {
		return nil
	}
	var found []string
	for _, imp := range slices.Sorted(maps.Keys(f.imports())) {
		local, ours := strings.CutPrefix(imp, module)
		if ours && !mayImport(from, local) {
			found = append(found, fmt.Sprintf("%s: %s may not import %s (%s)", f.path, from.name, local, from.why))
		}
	}
	return found
}

func mayImport(from room, imported string) bool {
	to, ok := roomOf(imported)
	if !ok {
		return false
	}
	return to.name == from.name || slices.ContainsFunc(strings.Fields(from.may), func(m string) bool {
		return inside(to.name, m)
	})
}

// checkPurity keeps clocks, goroutines and the world out of the pure rooms.
func checkPurity(f file) []string {
	r, _ := roomOf(f.path)
	if f.isTest() || !slices.Contains(pure, r.name) {
		return nil
	}
	var found []string
	imports := f.imports()
	for _, imp := range slices.Sorted(maps.Keys(imports)) {
		if !strings.HasPrefix(imp, module) && !slices.Contains(pureImports, imp) {
			found = append(found, fmt.Sprintf("%s: %s is pure and may not import %s", f.path, r.name, imp))
		}
	}
	clock, timed := imports["time"]
	switch {
	case clock == ".":
		found = append(found, fmt.Sprintf("%s: %s is pure and may not dot-import time", f.path, r.name))
	case timed && clock == "":
		clock = "time"
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("%s: %s is pure and may not start a goroutine", f.position(n), r.name))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == clock && slices.Contains(clockWords, n.Sel.Name) {
				found = append(found, fmt.Sprintf("%s: %s is pure and may not use time.%s", f.position(n), r.name, n.Sel.Name))
			}
		}
		return true
	})
	return found
}

// checkComments wants a comment that says what each package is for, in the form
// that go doc shows: "Package x …", or any words for a command.
func checkComments(files []file) []string {
	said := map[string]bool{}
	for _, f := range files {
		if f.isTest() {
			continue
		}
		pkg := f.syntax.Name.Name
		doc := f.syntax.Doc.Text()
		says := doc != "" && (pkg == "main" || strings.HasPrefix(doc, "Package "+pkg+" "))
		said[f.folder()] = said[f.folder()] || says
	}
	var found []string
	for _, folder := range slices.Sorted(maps.Keys(said)) {
		if !said[folder] {
			found = append(found, folder+": has no package comment")
		}
	}
	return found
}

// checkModules wants a go.mod in each room that foreign imports belong to, and
// nowhere else.
func checkModules(t tree) []string {
	var found []string
	for _, folder := range t.modules {
		if !slices.ContainsFunc(modules, func(m string) bool { name, fits := fit(m, folder); return fits && name == folder }) {
			found = append(found, folder+": has a go.mod but is no module of the plan in test/layout")
		}
	}
	for _, f := range t.files {
		for _, m := range modules {
			if folder, fits := fit(m, f.path); fits && !slices.Contains(t.modules, folder) {
				found = append(found, fmt.Sprintf("%s: %s must have a go.mod of its own", f.path, folder))
			}
		}
	}
	return found
}
