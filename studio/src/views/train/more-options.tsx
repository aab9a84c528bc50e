// The options beyond the dozen, folded by group, with a search over all of them.

import { useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import type { OptionDescription } from "../../../../src/studio/protocol.js";
import { OptionField } from "./option-field.js";
import { searchOptions } from "./option-texts.js";
import { changed, offered, problems } from "./train-state.js";

export function MoreOptions() {
  const [text, setText] = useState("");
  const rest = offered.value.filter(({ isMain }) => !isMain);
  const found = searchOptions(rest, text);
  const groups = [...new Set(found.map(({ group }) => group))];
  return (
    <section class="panel stack tight more-options" aria-labelledby="more-title">
      <div class="row between">
        <h2 id="more-title">More options</h2>
        <label>
          <span class="visually-hidden">Search the other {rest.length} options</span>
          <input
            type="search"
            value={text}
            placeholder={`Search ${rest.length} options`}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
      </div>
      <p class="visually-hidden" role="status">
        {text !== "" && `${counted(found.length, "option")} found.`}
      </p>
      {found.length === 0 && <p class="muted">No option has these words.</p>}
      {groups.map((group) => (
        <Group
          key={group}
          group={group}
          members={found.filter((option) => option.group === group)}
          isSearched={text.trim() !== ""}
        />
      ))}
    </section>
  );
}

interface GroupProps {
  group: string;
  members: readonly OptionDescription[];
  isSearched: boolean;
}

function Group({ group, members, isSearched }: GroupProps) {
  const [isOpen, setOpen] = useState(false);
  const changes = members.filter(({ name }) => changed.value.has(name)).length;
  const bad = members.filter(({ name }) => problems.value.has(name)).length;
  return (
    <details
      open={isOpen || isSearched || bad > 0}
      onToggle={(event) => {
        // What is opened for a search closes with it.
        if (!isSearched) setOpen(event.currentTarget.open);
      }}
    >
      <summary>
        {group} <span class="muted">({members.length})</span>
        {changes > 0 && <span class="changes-count"> {changes} changed</span>}
        {bad > 0 && <span class="problem"> {counted(bad, "problem")}</span>}
      </summary>
      <div class="fields">
        {members.map((option) => (
          <OptionField key={option.name} option={option} />
        ))}
      </div>
    </details>
  );
}
