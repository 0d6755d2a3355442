package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// shown is how many nodes are listed unless all are asked for.
const shown = 20

// Write prints the explanation for people.
func (p *Pod) Write(w io.Writer, all bool, now time.Time) error {
	if _, err := fmt.Fprintln(w, p.headline(now)); err != nil {
		return err
	}
	if p.State != Pending {
		return nil
	}
	if p.Message != "" {
		fmt.Fprintf(w, "  %s\n", p.Message)
	}
	if p.Waits != "" {
		fmt.Fprintf(w, "  It %s%s.\n", p.Waits, p.what(now))
	}
	if len(p.Asked) > 0 {
		fmt.Fprintf(w, "Asks for:   %s\n", amounts(p.Asked))
	}
	if len(p.Nodes) > 0 {
		if err := p.table(w, all); err != nil {
			return err
		}
	}
	switch {
	case p.Nearest == "":
	case len(p.Nodes) == 0:
		fmt.Fprintf(w, "Missing:    %s\n", p.Nearest)
	default:
		fmt.Fprintf(w, "Nearest:    %s\n", p.Nearest)
	}
	if p.Preemption != nil {
		fmt.Fprintf(w, "Preemption: %s\n", p.Preemption.sentence())
	}
	return nil
}

func (p *Pod) headline(now time.Time) string {
	name := p.Namespace + "/" + p.Name
	switch p.State {
	case Scheduled:
		return fmt.Sprintf("Pod %s has been on node %s %s.", name, p.Node, since(p.Since, now))
	case Binding:
		if p.Message != "" {
			return fmt.Sprintf("Pod %s has been given to node %s; %s.", name, p.Node, p.Message)
		}
		return fmt.Sprintf("Pod %s has been given to node %s; that is being written.", name, p.Node)
	case Pending:
		tries := "not tried yet"
		ago := duration.HumanDuration(now.Sub(p.Tried.Time))
		switch {
		case p.Attempts == 1:
			tries = fmt.Sprintf("tried once, %s ago", ago)
		case p.Attempts > 1:
			tries = fmt.Sprintf("tried %d times, last %s ago", p.Attempts, ago)
		}
		return fmt.Sprintf("Pod %s has been pending %s, %s.", name, since(p.Since, now), tries)
	}
	return fmt.Sprintf("Pod %s was made %s; %s.", name, ago(p.Since, now), p.Message)
}

func ago(t metav1.Time, now time.Time) string {
	return duration.HumanDuration(now.Sub(t.Time)) + " ago"
}

func since(t metav1.Time, now time.Time) string {
	return fmt.Sprintf("since %s (%s)", t.Format(time.RFC3339), duration.HumanDuration(now.Sub(t.Time)))
}

func (p *Pod) what(now time.Time) string {
	switch {
	case len(p.Helps) > 0:
	case p.Next.After(now):
		return ", which comes in " + duration.HumanDuration(p.Next.Sub(now))
	default:
		return ""
	}
	return ": " + strings.Join(p.Helps, "; ")
}

func (p *Pod) table(w io.Writer, all bool) error {
	tab := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tab, "NODE\tVERDICT\tWHY")
	for i := range p.Nodes {
		if i == shown && !all {
			break
		}
		n := &p.Nodes[i]
		fmt.Fprintf(tab, "%s\t%s\t%s\n", n.Name, n.verdict(), n.why())
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if rest := len(p.Nodes) - shown; rest > 0 && !all {
		fmt.Fprintf(w, "… and %d more nodes; --all shows them\n", rest)
	}
	return nil
}

func (n *Node) verdict() string {
	if n.Fits {
		return fmt.Sprintf("fits, score %d", n.Score)
	}
	return n.Plugin
}

func (n *Node) why() string {
	var parts []string
	for _, l := range n.Lacks {
		text := fmt.Sprintf("%s: asks %s, free %s of %s", l.Resource, l.Asked, l.free(), l.Allocatable)
		if l.Allocatable == "0" {
			text = fmt.Sprintf("%s: asks %s, the node has none", l.Resource, l.Asked)
		}
		if len(l.Users) > 0 {
			var users []string
			for _, u := range l.Users {
				one := u.Pod + " " + u.Quantity
				if u.Waiting {
					one += " to come"
				}
				users = append(users, one)
			}
			text += " (" + strings.Join(users, ", ") + ")"
		}
		if l.TooSmall && l.Allocatable != "0" {
			text += ", so it is too small even if empty"
		}
		parts = append(parts, text)
	}
	text := n.Detail
	if len(n.Pods) > 0 {
		text += ": " + strings.Join(n.Pods, ", ")
	}
	if n.More {
		text += " and more"
	}
	switch {
	case text != "":
		parts = slices.Insert(parts, 0, text)
	case len(parts) == 0:
		parts = n.Reasons
	}
	return strings.Join(parts, "; ")
}

// free is what is left; a node may have given away more than it has, to pods that are to come in the place of others.
func (l *Lack) free() string {
	if strings.HasPrefix(l.Free, "-") {
		return "none"
	}
	return l.Free
}

func (p *Preemption) sentence() string {
	switch {
	case p.Waiting && len(p.Victims) > 0:
		return fmt.Sprintf("waits until pods that gave way have left node %s: %s", p.Node, strings.Join(p.Victims, ", "))
	case p.Waiting:
		return fmt.Sprintf("waits until pods that gave way have left node %s", p.Node)
	case p.Node != "" && len(p.Victims) > 0:
		return fmt.Sprintf("%s would have to leave node %s", strings.Join(p.Victims, ", "), p.Node)
	case p.Node != "":
		return fmt.Sprintf("node %s is held for a less important pod, which would give way", p.Node)
	}
	return p.Why
}

func amounts(list []Amount) string {
	var parts []string
	for _, a := range list {
		parts = append(parts, a.Quantity+" "+a.Resource)
	}
	return strings.Join(parts, ", ")
}
