import { describe, it } from "vitest";

import { caseFiles, Runner } from "./cases.js";

describe.each(caseFiles("session"))("$file", ({ cases }) => {
  for (const story of cases) {
    // A browser cannot read the status of a refused upgrade, so neither can this client.
    it.skipIf(story.requires?.includes("http"))(`${story.name}: ${story.holds}`, () => {
      for (const draw of [0, 0.5, 0.999]) new Runner(story.initial, draw).run(story.steps);
    });
  }
});
