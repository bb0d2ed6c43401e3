package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// newConfig is 'comanda config …': what 'comanda serve' would be told.
func newConfig() *cobra.Command {
	return noun("config", "Check, print and explain the settings of a server", newConfigCheck(), newConfigPrint(), newConfigDocs())
}

func newConfigCheck() *cobra.Command {
	s := &serveFlags{}
	cmd := &cobra.Command{
		Use: "check", Short: "Say whether a server would start with these settings; it opens nothing", Args: args(cobra.NoArgs),
		Example: "  comanda config check --config /etc/comanda.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.config(cmd); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "the settings are in order")
			return err
		},
	}
	s.add(cmd)
	return cmd
}

func newConfigPrint() *cobra.Command {
	s := &serveFlags{}
	var origin bool
	cmd := &cobra.Command{
		Use: "print", Short: "Print the settings that a server would have, as a file that --config takes", Args: args(cobra.NoArgs),
		Example: "  comanda config print --config /etc/comanda.yaml --origin",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := s.config(cmd); err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), origin)
		},
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each is from")
	return cmd
}

func newConfigDocs() *cobra.Command {
	return &cobra.Command{
		Use: "docs", Short: "Explain every setting of a server, in Markdown", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := &serveFlags{}
			s.add(&cobra.Command{})
			return s.docs(cmd.OutOrStdout())
		},
	}
}

// envPrefix begins the names of variables that are settings of a server.
const envPrefix = "COMANDA_SERVE_"

// configFlag names the file; it can't stand in one.
const configFlag = "config"

func envName(f *pflag.Flag) string { return envPrefix + strings.ToUpper(fileName(f)) }

func fileName(f *pflag.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }

// setting finds a setting by its name in a file; nil: there is none.
func (s *serveFlags) setting(name string) *pflag.Flag {
	if f := s.flags.Lookup(strings.ReplaceAll(name, "_", "-")); f != nil && fileName(f) == name {
		return f
	}
	return nil
}

// load takes what the environment and the file say where no flag was given. Flags go
// before the environment, and that before the file.
func (s *serveFlags) load(environ []string, stdin io.Reader) error {
	s.origins = map[string]string{}
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			s.origins[f.Name] = "--" + f.Name
		}
	})
	for _, line := range environ {
		key, text, _ := strings.Cut(line, "=")
		name, ours := strings.CutPrefix(key, envPrefix)
		if !ours || text == "" { // an empty variable is none
			continue
		}
		f := s.setting(strings.ToLower(name))
		if f == nil || key != envName(f) {
			return fmt.Errorf("%s in the environment is no setting: see 'comanda config docs'", key)
		}
		if err := s.set(f, key, func() error { return setText(f, text) }); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if s.file == "" {
		return nil
	}
	text, err := readText(stdin, s.file)
	if err != nil {
		return err
	}
	if err := s.parse(text); err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	return nil
}

// parse takes the settings of a file.
func (s *serveFlags) parse(text []byte) error {
	var file yaml.Node
	if err := parseYAML(text, &file); err != nil || len(file.Content) == 0 {
		return err
	}
	return eachField(file.Content[0], func(key, value *yaml.Node) error {
		f := s.setting(key.Value)
		if f == nil || f.Name == configFlag {
			return fmt.Errorf("line %d: %q is no setting: see 'comanda config docs'", key.Line, key.Value)
		}
		err := s.set(f, fmt.Sprintf("%s line %d", s.file, key.Line), func() error { return s.setNode(f, value) })
		if err != nil {
			return fmt.Errorf("line %d: %w", key.Line, err)
		}
		return nil
	})
}

// set has a setting given its value, unless it has one from what goes before.
func (s *serveFlags) set(f *pflag.Flag, origin string, give func() error) error {
	if s.origins[f.Name] != "" {
		return nil
	}
	s.origins[f.Name] = origin
	return give()
}

func setText(f *pflag.Flag, text string) error {
	if err := f.Value.Set(text); err != nil {
		return fmt.Errorf("%s %q: %w", fileName(f), text, err)
	}
	return nil
}

// setNode gives a setting what it has in a file: a list where it takes several values,
// names with values where it has names.
func (s *serveFlags) setNode(f *pflag.Flag, node *yaml.Node) error {
	switch kind := f.Value.Type(); {
	case hasText(node):
		return setText(f, node.Value)
	case node.Kind == yaml.SequenceNode && kind == "stringSlice":
		var values []string
		for _, item := range node.Content {
			if !hasText(item) {
				return fmt.Errorf("%s: want a list of values", fileName(f))
			}
			values = append(values, item.Value)
		}
		return f.Value.(pflag.SliceValue).Replace(values)
	case node.Kind == yaml.MappingNode && kind == "stringToString":
		s.Labels = map[string]string{}
		return eachField(node, func(key, value *yaml.Node) error {
			if !hasText(value) {
				return fmt.Errorf("%s: want names and values", fileName(f))
			}
			s.Labels[key.Value] = value.Value
			return nil
		})
	}
	return fmt.Errorf("%s: want one value", fileName(f))
}

func hasText(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() != "!!null" && node.Value != ""
}

// print writes the settings as a file. One that is empty has a default of its own,
// and is left out.
func (s *serveFlags) print(out io.Writer, origin bool) error {
	file := &yaml.Node{Kind: yaml.MappingNode}
	s.flags.VisitAll(func(f *pflag.Flag) {
		value := s.node(f)
		if f.Name == configFlag || value.Value == "" && len(value.Content) == 0 {
			return
		}
		if origin {
			value.LineComment = cmp.Or(s.origins[f.Name], "default")
		}
		file.Content = append(file.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: fileName(f)}, value)
	})
	return yaml.NewEncoder(out).Encode(file)
}

// node is a setting's value in a file.
func (s *serveFlags) node(f *pflag.Flag) *yaml.Node {
	node := &yaml.Node{}
	var err error
	switch f.Value.Type() {
	case "stringSlice":
		err = node.Encode(f.Value.(pflag.SliceValue).GetSlice())
		node.Style = yaml.FlowStyle
	case "stringToString":
		err = node.Encode(s.Labels)
		node.Style = yaml.FlowStyle
	case "bool":
		err = node.Encode(f.Value.String() == "true")
	default:
		err = node.Encode(f.Value.String())
	}
	if err != nil {
		panic(err) // all of these can be encoded
	}
	return node
}

// docs writes what docs/configuration.md has.
func (s *serveFlags) docs(out io.Writer) error {
	text := `# Configuration

A server needs none. Each setting is taken from the first of these that names it; what is no setting is refused:

1. flags: ` + "`comanda serve --log-level debug`" + `
2. the environment: ` + "`COMANDA_SERVE_LOG_LEVEL=debug`" + `; a list has commas, and an empty variable is none
3. the file in YAML that ` + "`--config` or `COMANDA_SERVE_CONFIG`" + ` names: ` + "`log_level: debug`, `join: [10.0.0.7:7401]`, `label: {zone: a}`" + `
4. the defaults

` + "`comanda config check`" + ` says whether a server would start with what it is told, ` + "`comanda config print --origin`" + ` what that is and
where each setting is from. Both take the flags of ` + "`serve`" + `. This page is what ` + "`comanda config docs`" + ` prints.

| in a file | default | what it is |
| --- | --- | --- |
`
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == configFlag {
			return
		}
		_, usage := pflag.UnquoteUsage(f)
		standard := ""
		if f.DefValue != "" && f.DefValue != "[]" {
			standard = "`" + f.DefValue + "`"
		}
		text += fmt.Sprintf("| `%s` | %s | %s |\n", fileName(f), standard, usage)
	})
	_, err := io.WriteString(out, text)
	return err
}
