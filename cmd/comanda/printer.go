package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printer writes objects in the format that -o names.
type printer struct {
	out    io.Writer
	format string
}

func (p printer) check() error {
	switch p.format {
	case "table", "json", "jsonl", "name":
		return nil
	}
	return usageError(fmt.Errorf("-o %q: want table, json, jsonl or name", p.format))
}

// one prints an object; -o name prints the value of name.
func (p printer) one(o object, name string) error {
	switch p.format {
	case "json":
		return p.json(o)
	case "jsonl":
		return json.NewEncoder(p.out).Encode(o)
	case "name":
		_, err := fmt.Fprintln(p.out, cell(o.at(name)))
		return err
	}
	return p.table(lines("", o))
}

// many prints objects; a table has the columns, and -o name prints the first.
func (p printer) many(os []object, columns ...string) error {
	switch p.format {
	case "json":
		return p.json(os)
	case "jsonl":
		e := json.NewEncoder(p.out)
		for _, o := range os {
			if err := e.Encode(o); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, o := range os {
			if _, err := fmt.Fprintln(p.out, cell(o.at(columns[0]))); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, 1+len(os))
	for _, c := range columns {
		rows[0] = append(rows[0], strings.ToUpper(strings.ReplaceAll(c[strings.LastIndexByte(c, '.')+1:], "_", " ")))
		for i, o := range os {
			rows[1+i] = append(rows[1+i], cell(o.at(c)))
		}
	}
	return p.table(rows)
}

func (p printer) json(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s\n", b)
	return err
}

// table writes rows so that their cells stand below each other.
func (p printer) table(rows [][]string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := io.WriteString(w, strings.Join(row, "\t")+"\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// lines are the rows of one object, a value each, with the names of inner
// objects before their values. What is empty is left out.
func lines(prefix string, o object) (rows [][]string) {
	for _, f := range o {
		name := prefix + f.name
		switch v := f.value.(type) {
		case object:
			rows = append(rows, lines(name+".", v)...)
		case []any:
			for _, item := range v {
				text := cell(item)
				if inner, ok := item.(object); ok {
					text = summary(inner)
				}
				rows = append(rows, []string{name, text})
			}
		case map[string]any:
			if len(v) > 0 {
				rows = append(rows, []string{name, cell(v)})
			}
		default:
			if text := cell(v); text != "" {
				rows = append(rows, []string{name, text})
			}
		}
	}
	return rows
}

// summary is an object in one line, without what is empty.
func summary(o object) string {
	var parts []string
	for i, f := range o {
		text := cell(f.value)
		switch {
		case text == "" || text == "0":
		case i == 0 && f.name == "at" || f.name == "event": // of a timeline
			parts = append(parts, text)
		default:
			parts = append(parts, f.name+"="+text)
		}
	}
	return strings.Join(parts, "  ")
}

// cell is a value in a table: text stays on its line.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return strings.NewReplacer("\n", `\n`, "\t", `\t`, "\r", `\r`, "\x1b", `\e`).Replace(v)
	case []any, []object, object, map[string]any:
		b, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return string(b)
	default:
		return fmt.Sprint(v)
	}
}
