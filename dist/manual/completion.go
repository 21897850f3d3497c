package manual

import (
	"fmt"
	"strings"
)

// Bash renders the completion for bash.
func (u Usage) Bash() string {
	var flags, values strings.Builder
	u.each(func(f Flag) {
		fmt.Fprintf(&flags, " -%s", f.Name)
		reply := ""
		switch {
		case f.isFile():
			reply = "compgen -f"
		case f.isFolder():
			reply = "compgen -d"
		case f.choices() != nil:
			reply = fmt.Sprintf("compgen -W '%s'", strings.Join(f.choices(), " "))
		case f.Arg == "":
			return
		default:
			fmt.Fprintf(&values, "\t-%s | --%s) return ;;\n", f.Name, f.Name)
			return
		}
		fmt.Fprintf(&values, "\t-%s | --%s) mapfile -t COMPREPLY < <(%s -- \"$word\"); return ;;\n", f.Name, f.Name, reply)
	})
	return fmt.Sprintf(`# bash completion for flanneld
_flanneld() {
	local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]}
	case $last in
%s	esac
	mapfile -t COMPREPLY < <(compgen -W '%s' -- "$word")
}
complete -F _flanneld flanneld
`, values.String(), strings.TrimSpace(flags.String()))
}

// Zsh renders the completion for zsh.
func (u Usage) Zsh() string {
	var b strings.Builder
	b.WriteString("#compdef flanneld\n_arguments \\\n")
	u.each(func(f Flag) {
		text := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(f.Text)
		action := ""
		switch {
		case f.isFile():
			action = ":file:_files"
		case f.isFolder():
			action = ":folder:_files -/"
		case f.choices() != nil:
			action = ":value:(" + strings.Join(f.choices(), " ") + ")"
		case f.Arg != "":
			action = ":" + strings.ReplaceAll(f.Arg, ":", `\:`) + ":"
		}
		fmt.Fprintf(&b, "\t'-%s[%s]%s' \\\n", f.Name, text, action)
	})
	return strings.TrimSuffix(b.String(), " \\\n") + "\n"
}

// Fish renders the completion for fish.
func (u Usage) Fish() string {
	var b strings.Builder
	b.WriteString("# fish completion for flanneld\n")
	u.each(func(f Flag) {
		value := " -x"
		switch {
		case f.isFile():
			value = " -r -F"
		case f.isFolder():
			value = " -x -a '(__fish_complete_directories)'"
		case f.choices() != nil:
			value = " -x -a '" + strings.Join(f.choices(), " ") + "'"
		case f.Arg == "":
			value = " -f"
		}
		text := strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(f.Text)
		fmt.Fprintf(&b, "complete -c flanneld -o %s%s -d '%s'\n", f.Name, value, text)
	})
	return b.String()
}
